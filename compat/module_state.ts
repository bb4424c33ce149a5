// What requests can share on Cloudflare's workers, at module level and in a
// Durable Object, without this library: for module_state.mjs.

const pause = (ms: number) =>
  new Promise<void>((resolve) => setTimeout(resolve, ms));

/** The same for both. */
export class Shared {
  #come: (value: string) => void = () => {};
  #kept: Request | undefined;
  #begun = 0; // requests that are not over at once
  #last: Promise<void> = Promise.resolve();

  /** Answers a request. */
  async fetch(request: Request): Promise<Response> {
    try {
      return new Response(await this.#answer(request));
    } catch (error) {
      return new Response((error as Error).message, { status: 599 });
    }
  }

  async #answer(request: Request): Promise<string> {
    switch (request.url.split("/").at(-1)) {
      case "wait":
        return await this.#wait();
      case "wait-with-timer": {
        const timer = setInterval(() => {}, 100);
        return await this.#wait().finally(() => clearInterval(timer));
      }
      case "come":
        this.#come("came");
        return "sent";
      case "keep":
        this.#kept = request;
        this.#begun++;
        await pause(1000);
        return "kept";
      case "read":
        return await this.#kept!.text();
      case "turn": { // of a mutex, as people write it
        const before = this.#last;
        let end = () => {};
        this.#last = new Promise((resolve) => end = resolve);
        await before;
        this.#begun++;
        await pause(500).finally(end);
        return "done";
      }
      case "is-free":
        return await Promise.race([
          this.#last.then(() => "free"),
          pause(2000).then(() => "taken for ever"),
        ]);
      default:
        return `${this.#begun}`;
    }
  }

  #wait(): Promise<string> {
    this.#begun++;
    return new Promise((come) => this.#come = come);
  }
}

interface Env {
  SHARED: {
    getByName(name: string): { fetch(request: Request): Promise<Response> };
  };
}

const shared = new Shared();

export default {
  fetch(request: Request, env: Env): Promise<Response> {
    const inside = new URL(request.url).pathname.startsWith("/object/");
    return (inside ? env.SHARED.getByName("main") : shared).fetch(request);
  },
};
