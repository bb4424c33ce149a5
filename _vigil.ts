/**
 * Watches over those who wait or work on Cloudflare's workers, where a task ends
 * without a word when the client of its request leaves.
 *
 * Internal: not an entry point of the package.
 *
 * @module
 */

const BEAT = 100; // ms
const EARLY = 10; // ms that a timer may be too early
const MISSED = 5; // beats in a row, before somebody counts as gone

/** Whether tasks may end without a word here. */
export function losesTasks(): boolean {
  const { navigator } = globalThis as { navigator?: { userAgent?: string } };
  return navigator?.userAgent === "Cloudflare-Workers";
}

/** Those who came in one go, and so belong to one request. */
class Party<Member> {
  readonly members = new Set<Member>();
  missed = 0; // beats
  readonly timer: ReturnType<typeof setInterval>;

  constructor(beat: (party: Party<Member>) => void) {
    this.timer = setInterval(() => beat(this), BEAT);
  }
}

/**
 * Each party has a timer in its own request, which also keeps the runtime from
 * taking a request that waits for another one for hung. Whose timer has stopped
 * is lost.
 */
// Beats are counted, and not more than one at a time: after a handler that has
// kept the thread busy for long, everyone is late.
export class Vigil<Member> {
  readonly #parties = new Set<Party<Member>>();
  #coming: Party<Member> | undefined;
  readonly #lost: (member: Member) => void;
  #round = 0; // when beats were last counted
  #looked = false; // in this go

  /** Tells of members who are lost. */
  constructor(lost: (member: Member) => void) {
    this.#lost = lost;
  }

  /** Watches over a member, whose request is the one that runs now, until the function returned is called. */
  join(member: Member): () => void {
    const party = this.#coming ??= this.#welcome();
    party?.members.add(member);
    return () => {
      party?.members.delete(member);
      if (party?.members.size === 0) this.#dismiss(party);
    };
  }

  /** Counts the beats that are missing, and tells of those who have missed too many. */
  look(): void {
    if (this.#looked) return; // in one go nobody else can beat
    this.#looked = true;
    queueMicrotask(() => this.#looked = false);
    const now = Date.now();
    const passed = now - this.#round;
    if (passed >= 0 && passed < BEAT - EARLY) return;
    this.#round = now;
    for (const party of this.#parties) {
      if (party.missed++ < MISSED) continue;
      this.#dismiss(party);
      party.members.forEach(this.#lost);
    }
  }

  #welcome(): Party<Member> | undefined {
    try {
      const party = new Party<Member>((party) => this.#beat(party));
      queueMicrotask(() => this.#coming = undefined);
      this.#parties.add(party);
      return party;
    } catch {
      // Outside of any request no timer may be set, and nothing gets lost.
    }
  }

  #dismiss(party: Party<Member>): void {
    clearInterval(party.timer);
    this.#parties.delete(party);
    if (this.#coming === party) this.#coming = undefined;
  }

  #beat(party: Party<Member>): void {
    if (!this.#parties.has(party)) return clearInterval(party.timer); // dismissed from elsewhere
    party.missed = 0;
    this.look();
  }
}
