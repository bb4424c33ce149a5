// The inspector under the servers of Deno, Bun and Node, and its page in a
// headless Chromium. Prints like the hosts of run.mjs, which bundles what is
// inspected. Pictures of the page are left in out/.
import assert from "node:assert/strict";
import { once } from "node:events";
import process from "node:process";
import { launch, Wire } from "./chromium.mjs";
import { finish, HOST, runAll, Server } from "./server.mjs";
import { findDeno } from "./start.mjs";

process.chdir(import.meta.dirname);

/** How the service is started; each prints where it listens. */
const runtimes = {
  deno: [
    findDeno(),
    "serve",
    "--no-config",
    "--host",
    HOST,
    "--port=0",
    "out/inspected.js",
  ],
  bun: [
    "node_modules/.bin/bun",
    "--no-install",
    "--port=0",
    "out/inspected.js",
  ],
  node: ["node_modules/node24/bin/node", "out/inspected.js"],
};

const ROOT = "/deep/inside/";

class Service extends Server {
  /** Has the service do something. */
  async do(path) {
    const { status, text } = await this.ask("GET", `/${path}`);
    assert.equal(status, 200, text);
    return JSON.parse(text);
  }

  /** Resolves once so many pages observe the bus. */
  async observers(count) {
    while (await this.do("observers") !== count);
  }

  /** Opens a stream of events; resolves with its response. */
  async stream() {
    const [response] = await once(
      this.send("GET", `${ROOT}events`),
      "response",
    );
    return response.on("error", () => {}); // it is cut off
  }
}

/** Resolves once a stream has told what it should. */
async function told(response, pattern) {
  let text = "";
  for await (const part of response.setEncoding("utf8")) {
    text += part;
    const found = pattern.exec(text);
    if (found) return found;
  }
  throw new Error(`It ended with ${text}`);
}

const served = {
  "the page is served, and nothing else": async (service) => {
    const { status, headers, text } = await service.ask("GET", ROOT);
    assert.equal(status, 200);
    assert.equal(headers["content-type"], "text/html; charset=utf-8");
    assert.match(headers["content-security-policy"], /^default-src 'none';/);
    assert.match(text, /^<!doctype html>\n[^]+<\/html>\n$/);
    for (
      const [status, method, path] of [
        [404, "GET", `${ROOT}nothing`],
        [404, "GET", `${ROOT}%3Cscript%3E`],
        [405, "POST", ROOT],
        [405, "DELETE", `${ROOT}events`],
      ]
    ) {
      const answer = await service.ask(method, path);
      assert.equal(answer.status, status, `${method} ${path}`);
    }
    const headers2 = { "sec-fetch-site": "cross-site" };
    const foreign = await service.ask("GET", `${ROOT}events`, {
      headers: headers2,
    });
    assert.equal(foreign.status, 403);
  },

  "events are told as they come": async (service) => {
    const stream = await service.stream();
    assert.equal(stream.headers["content-type"], "text/event-stream");
    await service.observers(1);
    await service.do("order?dish=tea");
    await told(stream, /"type":"served","source":"kitchen"/);
  },

  "nobody observes once the last page has left": async (service) => {
    await service.observers(0);
    for (const how of ["destroy", "resetAndDestroy"]) {
      const streams = [await service.stream(), await service.stream()];
      await service.observers(2);
      streams[0].socket[how]();
      await service.observers(1);
      streams[1].socket[how]();
      await service.observers(0);
    }
  },

  "there are no more pages than may be": async (service) => {
    const streams = [];
    for (let n = 0; n < 4; n++) streams.push(await service.stream());
    assert.equal((await service.ask("GET", `${ROOT}events`)).status, 503);
    streams[0].destroy();
    await service.observers(3);
    assert.equal((await service.stream()).statusCode, 200);
  },
};

// ------------------------------------------------------------------ the page

const browser = await launch();

/** Opens the page, and sees to it that nothing goes wrong in it. */
async function open(service, { root = ROOT, ...options } = {}) {
  const wire = await Wire.to(service);
  const page = await browser.newPage(options);
  page.setDefaultTimeout(20_000);
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(error.stack));
  page.on("dialog", (dialog) => {
    wrong.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on("console", (message) => {
    const text = message.text();
    if (!/net::ERR_|status of 503/.test(text)) wrong.push(text); // it was cut off
  });
  await page.addInitScript(() => {
    globalThis.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => {
      globalThis.violations.push(event.violatedDirective);
    });
  });
  await page.goto(new URL(root, wire.url).href);
  await connection(page, "Connected");
  return {
    page,
    /** All was well; but for what the browser says of violations, if it `violates` the policy. */
    async close({ violates = false } = {}) {
      assert.deepEqual(await page.evaluate("violations"), []);
      const said = wrong.filter((text) =>
        !violates || !/Content Security Policy|requires 'Trusted/.test(text)
      );
      assert.deepEqual(said, []);
      await page.close();
      wire.close();
      await service.observers(0);
    },
  };
}

const connection = (page, text) =>
  page.locator("#connection").getByText(text, { exact: true }).waitFor();
const rows = (page) => page.locator("#events > li");
const subscription = (page, name, more = "") =>
  page.locator(`.subscription${more}[data-name=${JSON.stringify(name)}]`);

/** Texts of the map that are cut short, or that go beyond their boxes. */
const cutOff = (page) =>
  page.locator("#buses svg .box").evaluateAll((boxes) =>
    boxes.flatMap((box) => {
      const room = box.getBoundingClientRect();
      return [...box.parentElement.querySelectorAll("text")].filter((text) => {
        const { left, right, top, bottom } = text.getBoundingClientRect();
        return text.textContent.includes("…") || left < room.left ||
          right > room.right || top < room.top || bottom > room.bottom + 1;
      }).map((text) => text.textContent);
    })
  );

/** Clicks on a button until it opens the dialog: what is above it may move it away meanwhile. */
async function openBy(button, name) {
  const dialog = button.page().getByRole("dialog", name && { name });
  do await button.click(); while (!(await dialog.isVisible()));
  return dialog;
}

/** How far the page goes beyond its window, to the side. */
const excess = (page) =>
  page.evaluate("document.documentElement.scrollWidth - innerWidth");

const shown = {
  "events appear, with their ways": async (service) => {
    const { page, close } = await open(service);
    await service.do("order?dish=soup");
    const order = rows(page).filter({ hasText: "from table 7" }).first();
    await order.getByText(/^kitchen: handled, waited .+ ms, took .+ ms$/)
      .waitFor();
    await order.getByText('"soup"').waitFor();
    await rows(page).filter({ hasText: "from kitchen" })
      .getByText(/^bookkeeper: handled, /).first().waitFor();
    await service.do("order?dish=pie");
    await rows(page).getByText(/^bookkeeper: failed: Error: no ink, /)
      .waitFor();
    await page.locator(".publisher").getByText("table 7", { exact: true })
      .waitFor();
    await subscription(page, "bookkeeper").getByText(/1 failed/).waitFor();
    await page.locator('.link:not(.idle)[data-type="order"]').first()
      .waitFor({ state: "attached" });
    await close();
  },

  "a slow subscriber turns red while it holds publishers back": async (
    service,
  ) => {
    const { page, close } = await open(service);
    const stroke = (more = "") =>
      subscription(page, "slow", more).locator(".box")
        .evaluate((box) => getComputedStyle(box).stroke);
    await service.do("slow");
    await subscription(page, "slow", ".held").getByText(/^holds 1 back, /)
      .waitFor();
    const red = await page.evaluate(() => {
      const probe = document.createElement("i");
      probe.className = "bad";
      document.body.append(probe);
      const { color } = getComputedStyle(probe);
      probe.remove();
      return color;
    });
    assert.equal(await stroke(".held"), red);
    await page.locator("#announce").getByText("Holds publishers back: slow")
      .waitFor();
    await page.getByText("The map as a table").click();
    await page.getByRole("row", { name: /^slow bill 2 of 2 1, for / })
      .waitFor();
    await service.do("leave");
    await subscription(page, "slow").waitFor({ state: "detached" });
    await close();
  },

  "rates of subscriptions are exact, however little of it is looked at": async (
    service,
  ) => {
    const { page, close } = await open(service);
    await service.do("fan");
    const exact = subscription(page, "fan 0").getByText(/^[1-9][\d,.]*\/s$/);
    while (!(await exact.isVisible())) await service.do("blow");
    const arrow = page.locator('.link:not(.idle)[data-type="fan"]').last();
    assert.equal(Number(await arrow.getAttribute("data-width")) > 2, true);
    await page.getByText(/^Sampled: /).waitFor();
    await page.getByText("The map as a table").click();
    await page.getByRole("row", { name: /^\d+ more$/ }).waitFor(); // none in silence
    await service.do("leave");
    await close();
  },

  "a click shows the lineage, causes above and effects below": async (
    service,
  ) => {
    const { page, close } = await open(service);
    await service.do("order?dish=pie");
    const button = rows(page).filter({ hasText: "from kitchen" }).first()
      .getByRole("button", { name: "served" });
    await rows(page).getByText(/^bookkeeper: failed: /).waitFor();
    const dialog = await openBy(button, "Lineage of served");
    const family = await dialog.locator("#family > li").allTextContents();
    assert.equal(family.length, 2);
    assert.match(family[0], /^order from table 7, /);
    assert.match(family[1], /^served from kitchen, .*bookkeeper: failed: /);
    const diagram = dialog.getByRole("img", { name: /^Sequence diagram: / });
    assert.match(
      await diagram.getAttribute("aria-label"),
      /^Sequence diagram: table 7 publishes order; kitchen gets order: handled, .*; kitchen publishes served; bookkeeper gets served: failed: Error: no ink, /,
    );
    // From above to below, as it happened.
    const steps = await diagram.locator(".step").evaluateAll((steps) =>
      steps.map((step) => step.getBoundingClientRect().y)
    );
    assert.equal(steps.length, 4);
    assert.deepEqual(steps, [...steps].sort((a, b) => a - b));
    await dialog.getByRole("button", { name: "order" }).click();
    await page.getByRole("dialog", { name: "Lineage of order" }).waitFor();
    // What comes later is shown, too.
    await service.do("bill");
    await page.locator("#family > li").filter({ hasText: /^bill from cashier/ })
      .waitFor();
    await page.getByRole("img", { name: /; cashier publishes bill; / })
      .waitFor();
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "hidden" });
    await close();
  },

  "the list can be filtered, paused, and read back": async (service) => {
    const { page, close } = await open(service);
    await service.do("order?dish=soup");
    await service.do("order?dish=stew");
    await rows(page).nth(3).waitFor();
    const texts = () => rows(page).locator("button").allTextContents();
    /** Fills in a filter; resolves once the list has so many rows. */
    const filter = async (label, text, count) => {
      await page.getByLabel(label, { exact: true }).fill(text);
      await page.waitForFunction(
        (count) => document.querySelectorAll("#events > li").length === count,
        count,
      );
    };
    await filter("Type", "ORDER", 2);
    assert.deepEqual(await texts(), ["order", "order"]);
    await page.getByRole("status").getByText("2 of 4 events").waitFor();
    await filter("Type", "", 4);
    await filter("Source", "kitch", 2);
    assert.deepEqual(await texts(), ["served", "served"]);
    await filter("Text", "stew", 1);
    await filter("Source", "", 2);
    assert.deepEqual(await texts(), ["served", "order"]);
    await filter("Text", "bookkeeper", 2);
    await filter("Text", "", 4);

    const pause = page.getByRole("button", { name: "Pause" });
    await pause.click();
    assert.equal(await pause.getAttribute("aria-pressed"), "true");
    await service.do("reader");
    await service.do("many?n=120");
    await page.getByText("124 of 124 events kept, paused").waitFor();
    assert.equal(await rows(page).count(), 4);
    await pause.click();
    await page.waitForFunction(() =>
      document.querySelectorAll("#events > li").length === 50
    );
    assert.match(await rows(page).first().textContent(), /many.*from table 1/);
    const [newer, older] = ["Newer", "Older"]
      .map((name) => page.getByRole("button", { name }));
    await older.click();
    await older.click();
    await page.waitForFunction(() =>
      document.querySelectorAll("#events > li").length === 24
    );
    assert.equal(await older.isDisabled(), true);
    assert.match(await rows(page).last().textContent(), /order.*from table 7/);
    await newer.click();
    await newer.click();
    await page.getByText("124 of 124 events kept, paused").waitFor();
    assert.equal(await newer.isDisabled(), true);
    await close();
  },

  "the list holds still while somebody points at it": async (service) => {
    const { page, close } = await open(service);
    await service.do("order?dish=soup");
    await rows(page).nth(1).waitFor();
    await rows(page).first().hover();
    await page.getByText("held still while you are at it").waitFor();
    await service.do("order?dish=stew");
    await page.getByText("4 of 4 events kept, held still").waitFor();
    assert.equal(await rows(page).count(), 2);
    await page.mouse.move(0, 0);
    await rows(page).nth(3).waitFor();
    await close();
  },

  "hostile names stay text": async (service) => {
    const { page, close } = await open(service, {
      viewport: { width: 360, height: 700 },
    });
    const elements = () =>
      page.evaluate(() => [
        document.querySelectorAll("script").length,
        document.querySelectorAll("img, iframe, object, embed").length,
        globalThis.hacked,
      ]);
    await service.do("hostile");
    const row = rows(page).filter({ hasText: "onerror" }).first();
    await row.getByText(
      /^<\/script><img src=x .*: failed: Error: <\/script><img/,
    )
      .waitFor();
    const name =
      /^<\/script><img src=x onerror="hacked=1"><script>hacked=2<\/script>x+…$/;
    const button = row.getByRole("button");
    assert.match(await button.textContent(), name);
    await page.getByText("The map as a table").click();
    await page.getByRole("row", { name: /^<\/script>/ }).first().waitFor();
    assert.equal(await excess(page), 0);
    const dialog = await openBy(button);
    await dialog.locator("#family button").click();
    assert.equal(await excess(page), 0);
    assert.deepEqual(await elements(), [1, 0, undefined]);
    await close();
  },

  "the policy lets no other script run": async (service) => {
    const { page, close } = await open(service);
    // Playwright itself may do what the page may not.
    const violations = await page.evaluate(async () => {
      const script = document.createElement("script");
      const button = document.createElement("button");
      const attempts = [
        () => script.textContent = "globalThis.hacked = 1",
        () => script.append("globalThis.hacked = 2"),
        () => document.body.append(script),
        () => button.setAttribute("onclick", "globalThis.hacked = 3"),
        () => button.innerHTML = "<img src=x onerror='globalThis.hacked = 4'>",
        () => document.body.append(button),
        () => button.click(),
        () => setTimeout("globalThis.hacked = 5"),
      ];
      for (const attempt of attempts) {
        try {
          attempt();
        } catch { // trusted types
        }
      }
      await new Promise((done) =>
        requestAnimationFrame(() => setTimeout(done, 0))
      );
      script.remove();
      button.remove();
      return [globalThis.hacked, globalThis.violations.splice(0).length > 0];
    });
    assert.deepEqual(violations, [undefined, true]);
    await close({ violates: true });
  },

  "a restart of the server is survived": async (service) => {
    const { page, close } = await open(service);
    await service.do("order?dish=soup");
    await rows(page).nth(1).waitFor();
    await service.stop();
    await connection(page, "Disconnected, trying again");
    await page.locator("body.lost").waitFor();
    await service.start();
    await connection(page, "Connected");
    await rows(page).first().waitFor({ state: "detached" }); // ids begin anew
    await service.do("order?dish=stew");
    await rows(page).nth(1).waitFor();
    assert.equal(await rows(page).count(), 2);
    await subscription(page, "kitchen").getByText("1 delivered").waitFor();
    await close();
  },

  "a restart of the server lets go of a list that was held still": async (
    service,
  ) => {
    const { page, close } = await open(service);
    await service.do("order?dish=soup");
    await rows(page).nth(1).waitFor();
    await rows(page).first().getByRole("button").focus();
    await page.getByText("held still while you are at it").waitFor();
    await service.stop();
    await service.start();
    await connection(page, "Connected");
    await service.do("order?dish=stew");
    await rows(page).nth(1).waitFor();
    await page.getByText("2 of 2 events kept", { exact: true }).waitFor();
    await close();
  },

  "what has been counted stays counted when its subscription leaves": async (
    service,
  ) => {
    const { page, close } = await open(service);
    const failed = (count) =>
      page.waitForFunction(
        (count) =>
          [...document.querySelectorAll("#totals div")].some((tile) =>
            tile.textContent === `Failed${count}`
          ),
        count,
      );
    await service.do("failing");
    await failed(300);
    await service.do("leave");
    await service.do("failing");
    await failed(600);
    await service.do("leave");
    await close();
  },

  "events that many get leave the list earlier, so that memory is bounded":
    async (
      service,
    ) => {
      const { page, close } = await open(service);
      await service.do("fan"); // 300 subscriptions
      for (let n = 0; n < 58; n++) { // a frame has room for all that it does
        const newest = await page.evaluateHandle(
          "document.querySelector('#events').firstChild",
        );
        await service.do("breeze");
        await page.waitForFunction(
          (newest) => document.querySelector("#events").firstChild !== newest,
          newest,
        );
      }
      const kept = await page.locator("#count").textContent();
      const [, events] = / ([\d,]+) events kept/.exec(kept);
      assert.equal(Number(events) <= 100_000 / 300 + 1, true, kept);
      await service.do("leave");
      await close();
    },

  "what is pointed at on the map stays there": async (service) => {
    const { page, close } = await open(service);
    await service.do("order?dish=soup");
    await rows(page).nth(1).waitFor();
    const box = await subscription(page, "kitchen").elementHandle();
    const before = await box.textContent();
    await service.do("order?dish=soup");
    await page.waitForFunction(
      ([box, before]) => box.textContent !== before,
      [box, before],
    );
    assert.equal(await box.evaluate(({ isConnected }) => isConnected), true);
    await close();
  },

  "an event that comes to a second bus over a link has its ways on both":
    async (
      service,
    ) => {
      const { page, close } = await open(service, { root: `${ROOT}both/` });
      await service.do("deliver");
      const row = rows(page).filter({ hasText: "from courier" });
      await row.getByText(/^door: handled, /).waitFor();
      await row.getByText(/^neighbour: handled, /).waitFor();
      assert.equal(await row.count(), 1);
      await page.getByRole("heading", { name: "restaurant (2)" }).waitFor();
      const dialog = await openBy(row.getByRole("button"));
      await dialog.getByRole("img", {
        name:
          /: courier publishes parcel; .*door gets parcel: .*; neighbour gets parcel: /,
      }).waitFor();
      const heads = await dialog.locator("#diagram .box + text")
        .allTextContents();
      assert.deepEqual(heads.slice(0, 3), [
        "courier",
        "restaurant",
        "restaurant (2)",
      ]);
      await close();
    },

  "its colours stand out, and nothing moves by itself": async (service) => {
    for (const colorScheme of ["light", "dark"]) {
      const { page, close } = await open(service, { colorScheme });
      const poor = await page.evaluate(() => {
        const style = getComputedStyle(document.documentElement);
        const light = (name) => {
          const value = style.getPropertyValue(`--${name}`).trim().slice(1);
          const digits = value.length === 3
            ? [...value].map((digit) => digit + digit)
            : value.match(/../g);
          const [red, green, blue] = digits.map((two) => {
            const part = parseInt(two, 16) / 255;
            return part <= 0.04045
              ? part / 12.92
              : ((part + 0.055) / 1.055) ** 2.4;
          });
          return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
        };
        // WCAG 2.2, AA: 4.5 for text, 3 for what a control is seen by.
        const needed = { edge: 3 };
        for (const name of ["ink", "soft", "bad", "good", "focus"]) {
          needed[name] = 4.5;
        }
        for (let n = 0; n < 8; n++) needed[`c${n}`] = 4.5;
        return Object.entries(needed).flatMap(([name, least]) =>
          ["paper", "card"].map((ground) => {
            const [a, b] = [light(name), light(ground)].sort((a, b) => b - a);
            return [name, ground, (a + 0.05) / (b + 0.05), least];
          })
        ).filter(([, , ratio, least]) => !(ratio >= least));
      });
      assert.deepEqual(poor, []);
      assert.equal(
        await page.evaluate("document.getAnimations().length"),
        0,
      );
      assert.equal(
        await page.evaluate(
          "/transition|animation|@keyframes/.test(document.querySelector('style').textContent)",
        ),
        false,
      );
      await close();
    }
  },

  "a page that finds no place comes in once there is one": async (service) => {
    const streams = [];
    for (let n = 0; n < 4; n++) streams.push(await service.stream());
    const wire = await Wire.to(service);
    const page = await browser.newPage();
    await page.goto(new URL(ROOT, wire.url).href);
    await page.getByText(/^Refused, perhaps since too many pages are open/)
      .waitFor();
    streams[0].destroy();
    await connection(page, "Connected");
    await page.close();
    wire.close();
  },

  "a serializer shows how long its oldest request has waited": async (
    service,
  ) => {
    const { page, close } = await open(service);
    await service.do("bake");
    await service.do("bake");
    await page.getByRole("row", { name: /^oven 1 1 [\d.]+ m?s$/ }).waitFor();
    await close();
  },

  "it can be used by keyboard, and by its names": async (service) => {
    const { page, close } = await open(service);
    await service.do("order?dish=soup");
    await rows(page).nth(1).waitFor();
    const walk = [];
    for (let n = 0; n < 7; n++) {
      await page.keyboard.press("Tab");
      walk.push(
        await page.evaluate(() => {
          const { activeElement: it } = document;
          const { outlineStyle, outlineWidth } = getComputedStyle(it);
          const name = it.labels?.[0]?.textContent.trim() || it.textContent;
          return `${name} ${outlineStyle} ${outlineWidth}`;
        }),
      );
    }
    assert.deepEqual(
      walk,
      [
        "The map as a table",
        "Type",
        "Source",
        "Text",
        "Pause",
        "served",
        "order",
      ]
        .map((name) => `${name} solid 3px`),
    );
    await page.getByText("held still while you are at it").waitFor();
    await page.keyboard.press("Enter");
    const dialog = page.getByRole("dialog", { name: "Lineage of order" });
    await dialog.waitFor();
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "hidden" });
    assert.equal(
      await page.evaluate("document.activeElement.textContent"),
      "order",
    );
    for (
      const named of [
        page.getByRole("main"),
        page.getByRole("heading", { name: "Inspector", level: 1 }),
        page.getByRole("img", { name: /^The last minute: / }),
        page.getByRole("img", {
          name: /^Map of restaurant: 2 publishers, \d subscriptions/,
        }),
        page.getByRole("search"),
        page.getByRole("combobox", { name: "Type" }),
        page.getByRole("searchbox", { name: "Text" }),
        page.getByRole("button", { name: "Pause" }),
        page.getByRole("list", { name: "Events" }),
        page.getByRole("region", { name: "restaurant" }),
      ]
    ) await named.waitFor();
    assert.equal(
      await page.locator("[aria-live], [role=status], [role=alert]").count(),
      2, // the connection, and who holds publishers back
    );
    await close();
  },

  "it fits 360 pixels, light and dark": async (service) => {
    for (const colorScheme of ["light", "dark"]) {
      for (const width of [360, 1100]) {
        const viewport = { width, height: width > 500 ? 760 : 900 };
        const { page, close } = await open(service, { colorScheme, viewport });
        await service.do("slow");
        for (const dish of ["soup", "pie", "stew"]) {
          await service.do(`order?dish=${dish}`);
        }
        await subscription(page, "slow", ".held").waitFor();
        await rows(page).nth(8).waitFor();
        const [background] = /\d+/.exec(
          await page.evaluate(
            "getComputedStyle(document.body).backgroundColor",
          ),
        );
        assert.equal(Number(background) > 128, colorScheme === "light");
        assert.equal(await excess(page), 0);
        const path = `out/inspector-${colorScheme}-${width}.png`;
        await page.screenshot({ path });
        assert.deepEqual(await cutOff(page), []);
        await openBy(
          rows(page).getByRole("button", { name: "served" }).first(),
        );
        assert.equal(await excess(page), 0);
        await page.screenshot({ path: path.replace(".png", "-lineage.png") });
        await service.do("leave");
        await close();
      }
    }
  },

  "10,000 events do not hold up the page for more than 50 ms": async (
    service,
  ) => {
    await service.do("reader");
    const { page, close } = await open(service);
    const tasks = await longTasks(page, async () => {
      await service.do("many?n=100000"); // of which it takes a sample
      await page.getByText(/^Sampled: [\d,]+ events are not listed/).waitFor();
      const kept = page.locator("#count");
      const type = page.getByLabel("Type", { exact: true });
      for (
        let round = 0;
        !/ 10,000 events kept/.test(await kept.textContent());
        round++
      ) {
        await service.do("many?n=400");
        await page.evaluate(() => new Promise(requestAnimationFrame));
        if (round % 20 === 5) await type.fill("many");
        if (round % 20 === 10) await type.fill("nothing of that name");
        if (round % 20 === 15) await type.fill("");
      }
      await type.fill("many");
      await page.getByText("10,000 of 10,000 events kept").waitFor();
      await page.getByRole("button", { name: "Pause" }).click();
      await openBy(rows(page).first().getByRole("button"));
    });
    assert.deepEqual(tasks, []);
    // And one that is too long would have been noticed.
    const busy = await longTasks(
      page,
      () =>
        page.evaluate(() =>
          new Promise((done) =>
            setTimeout(() => {
              for (
                const end = performance.now() + 500;
                performance.now() < end;
              );
              done();
            })
          )
        ),
    );
    assert.equal(busy.length > 0, true);
    await close();
  },
};

/**
 * The tasks of more than 50 ms that a page has while something is done to it. A
 * busy machine makes all tasks long: those count that took the processor as long.
 */
async function longTasks(page, run) {
  await page.evaluate(() => {
    globalThis.long = [];
    globalThis.watching = new PerformanceObserver((list) =>
      globalThis.long.push(...list.getEntries().map(({ duration }) => duration))
    );
    globalThis.watching.observe({ type: "longtask" });
  });
  await browser.startTracing(page, {
    categories: [
      "toplevel",
      "devtools.timeline",
      "disabled-by-default-devtools.timeline",
    ],
  });
  await run();
  const long = await page.evaluate(async () => {
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    const last = globalThis.watching.takeRecords();
    globalThis.watching.disconnect();
    return [...globalThis.long, ...last.map(({ duration }) => duration)];
  });
  const { traceEvents } = JSON.parse(await browser.stopTracing());
  if (process.env.DEBUG) {
    console.log(
      long,
      traceEvents.length,
      traceEvents.filter(({ dur }) => dur > 30000).map((
        { name, dur, tdur, pid, tid },
      ) => [name, dur, tdur, pid, tid]),
    );
  }
  if (long.length === 0) return [];
  const main = new Set(
    traceEvents
      .filter(({ name, args }) =>
        name === "thread_name" && args.name === "CrRendererMain"
      )
      .map(({ pid, tid }) => `${pid} ${tid}`),
  );
  return traceEvents.filter(({ name, pid, tid, tdur }) =>
    /RunTask$/.test(name) && main.has(`${pid} ${tid}`) && tdur > 50_000
  ).map(({ dur, tdur }) => ({ dur, tdur }));
}

/** A test whose pages are closed, however it ends. */
const closing = (test) => async (service) => {
  try {
    await test(service);
  } finally {
    for (const context of browser.contexts()) await context.close();
  }
};

const only = process.argv[2];
const chosen = (tests) =>
  only === undefined ? tests : Object.fromEntries(
    Object.entries(tests).filter(([name]) => name.includes(only)),
  );
for (const [name, command] of Object.entries(runtimes)) {
  // On all of them that something is shown; the rest is up to the page.
  const [[first, test]] = Object.entries(shown);
  const page = name === "node" ? shown : { [first]: test };
  const all = Object.entries(chosen({ ...served, ...page }))
    .map(([name, test]) => [name, closing(test)]);
  await runAll(name, Object.fromEntries(all), new Service(command));
}
await browser.close();
finish();
