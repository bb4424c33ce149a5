// The restaurant from end to end, each time as a program of its own.
import {
  assert,
  assertEquals,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import { DatabaseSync } from "node:sqlite";

/** A day at the restaurant. */
interface Day {
  code: number;
  out: string;
  err: string;
  /** The ledger: lines of the orders, and portions in all. */
  lines: number[];
  portions: number;
}

/** Opens the restaurant, and waits until it has closed. */
async function spend(
  args: string[],
  { rows = "", until }: {
    /** What comes in by standard input, which stays open if `until` is given. */
    rows?: string;
    /** Called once something has been served. */
    until?: (restaurant: Deno.ChildProcess) => void;
  } = {},
): Promise<Day> {
  const folder = await Deno.makeTempDir();
  const file = `${folder}/ledger.db`;
  const program = ["run", "-RW", "examples/restaurant.ts", "--ledger", file];
  try {
    const restaurant = new Deno.Command(Deno.execPath(), {
      args: [...program, ...args],
      cwd: new URL("..", import.meta.url),
      env: { NO_COLOR: "1" },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const guests = restaurant.stdin.getWriter();
    await guests.write(new TextEncoder().encode(rows));
    if (until === undefined) await guests.close();
    const out = new Response(restaurant.stdout).text();
    let err = "";
    for await (
      const text of restaurant.stderr.pipeThrough(new TextDecoderStream())
    ) {
      err += text;
      if (!err.includes(" written, ")) continue;
      until?.(restaurant);
      until = undefined;
    }
    const { code } = await restaurant.status;
    await guests.abort().catch(() => {});
    return { code, out: await out, err, ...read(file) };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function read(file: string): { lines: number[]; portions: number } {
  const database = new DatabaseSync(file);
  try {
    database.exec("CREATE TABLE IF NOT EXISTS served (line, portions)");
    const served = database.prepare("SELECT line, portions FROM served").all();
    return {
      lines: served.map(({ line }) => Number(line)),
      portions: served.reduce((sum, row) => sum + Number(row.portions), 0),
    };
  } finally {
    database.close();
  }
}

/** The line numbers `from … to`. */
const range = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, i) => from + i);

const sorted = (lines: number[]) => lines.toSorted((a, b) => a - b);

const MENU = "guest,dish,portions\n" +
  range(2, 41).map((line) => `table ${line},soup,${line}\n`).join("");

Deno.test("restaurant serves and writes down every order of a table", async () => {
  const day = await spend(["-"], { rows: MENU });
  assertEquals(day.code, 0, day.err);
  assertEquals(sorted(day.lines), range(2, 41));
  assertEquals(day.portions, 860);
  assertStringIncludes(day.out, "Ordered: 40 (860 portions), 0 skipped");
  assertStringIncludes(day.out, "Served: 40, ");
  assertStringIncludes(day.out, "Ledger: 40 (860 portions)");
  assertEquals(
    day.out.trimEnd().split("\n").at(-1),
    "Kitchen is closed: no more guests",
  );
});

Deno.test("restaurant reads lines of JSON and plain lines", async () => {
  const folder = await Deno.makeTempDir();
  const kinds: [name: string, rows: string, portions: number][] = [
    [
      "a.ndjson",
      '\ufeff{"guest":"a","dish":"pie","n":3}\n{}\n["b","pie",4]',
      7,
    ],
    ["a.log", "soup, for two\n\nsteak\n", 2],
  ];
  try {
    for (const [name, rows, portions] of kinds) {
      await Deno.writeTextFile(`${folder}/${name}`, rows);
      const day = await spend([`${folder}/${name}`]);
      assertEquals([day.code, day.lines.length], [0, 2], day.err);
      assertEquals(day.portions, portions);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("restaurant reports a bad row by its line, and skips it", async () => {
  const day = await spend(["-"], { rows: "a,b,c\n1,2,3\n4,5\n6,7,8\n" });
  assertEquals(day.code, 0, day.err);
  assertStringIncludes(day.err, "Line 3 of - skipped: ");
  assertStringIncludes(day.out, "Ordered: 2 (11 portions), 1 skipped");
  assertEquals(sorted(day.lines), [2, 4]);
});

Deno.test("restaurant says that a file is missing, and fails", async () => {
  const day = await spend(["no such menu.csv"]);
  assertEquals(day.code, 1);
  assertStringIncludes(day.err, "no such menu.csv");
  assertStringIncludes(day.out, "Kitchen is closed");
});

Deno.test("restaurant says that its ledger can't be opened, and fails", async () => {
  const day = await spend(["-", "--ledger", "no/such/folder/ledger.db"], {
    rows: MENU,
  });
  assertEquals(day.code, 1);
  assertStringIncludes(day.err, "Error: unable to open database file");
  assertStringIncludes(day.out, "Kitchen is closed");
});

Deno.test("restaurant refuses a command line that makes no sense, at once", async () => {
  const lines = [["--hours", "soon"], ["--hours", "0"], ["--hours=-1"]];
  for (const args of [...lines, ["--tip", "5"], ["a.csv", "b.csv"]]) {
    const day = await spend(["-", ...args]);
    assertEquals([day.code, day.out], [1, ""]);
    assertMatch(day.err, /^Error: .+\nUsage: /s);
  }
});

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  Deno.test(`restaurant serves what was ordered before ${signal}, and closes`, async () => {
    const day = await spend(["-"], {
      rows: MENU,
      until: (restaurant) => {
        restaurant.kill(signal);
        restaurant.kill(signal); // as `deno task` does: one from the terminal, one from it
      },
    });
    assertEquals(day.code, 0, day.err);
    const orders = Number(/Ordered: (\d+)/.exec(day.out)?.[1]);
    assert(orders > 0 && orders <= 40, day.out);
    assertEquals(sorted(day.lines), range(2, orders + 1)); // none lost, none twice
    assertStringIncludes(
      day.out,
      `Kitchen is closed: ${signal === "SIGINT" ? "Ctrl-C" : signal}`,
    );
  });
}

Deno.test("restaurant closes at closing time, though guests could still come", async () => {
  const day = await spend(["-", "--hours", "0.0002"], {
    rows: MENU,
    until: () => {}, // standard input stays open
  });
  assertEquals(day.code, 0, day.err);
  assertStringIncludes(day.out, "Kitchen is closed: closing time");
  const orders = Number(/Ordered: (\d+)/.exec(day.out)?.[1]);
  assertEquals(sorted(day.lines), range(2, orders + 1));
});

Deno.test("restaurant closes at the `shutdown` event in the middle of a long menu", async () => {
  const rows = "guest,dish\n" +
    range(2, 20_001).map((n) => `${n},soup\n`).join("");
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/long.csv`, rows);
    const day = await spend([`${folder}/long.csv`], {
      until: (restaurant) => restaurant.kill("SIGINT"), // which publishes it
    });
    assertEquals(day.code, 0, day.err);
    const orders = Number(/Ordered: (\d+)/.exec(day.out)?.[1]);
    assert(orders < 20_000, day.out);
    assertEquals(sorted(day.lines), range(2, orders + 1));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("restaurant --trace draws the way of the last order, as the README shows it", async () => {
  const folder = await Deno.makeTempDir();
  const out = `${folder}/not there yet`;
  try {
    const rows = "guest,dish,portions\ntable 7,soup,2\n";
    const day = await spend(["-", "--trace", out], { rows });
    assertEquals(day.code, 0, day.err);
    const picture = await Deno.readTextFile(`${out}/restaurant.mmd`);
    const readme = new URL("../README.md", import.meta.url);
    assertStringIncludes(
      await Deno.readTextFile(readme),
      `\`\`\`mermaid\n${picture}\`\`\`\n`,
    );
    const trace = await Deno.readTextFile(`${out}/restaurant.trace.json`);
    const slices = JSON.parse(trace).traceEvents
      .filter(({ ph }: { ph: string }) => ph === "X");
    const written = slices.filter(({ name }: { name: string }) =>
      name === "written"
    );
    assertEquals(written.length, 2); // by the ledger, for the board
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("restaurant --inspect shows the day on a web page of this machine, until Ctrl-C", async () => {
  const folder = await Deno.makeTempDir();
  const restaurant = new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "-RW", "--allow-net=127.0.0.1", "examples/restaurant.ts"],
      ...["-", "--inspect", "--ledger", `${folder}/ledger.db`],
    ],
    cwd: new URL("..", import.meta.url),
    stdin: "piped",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  try {
    const guests = restaurant.stdin.getWriter();
    await guests.write(new TextEncoder().encode(MENU));
    let out = "";
    let isClosed = false;
    let seen = "";
    for await (
      const text of restaurant.stdout.pipeThrough(new TextDecoderStream())
    ) {
      out += text;
      const url = /^Inspect the restaurant at (http:.+\/)$/m.exec(out)?.[1];
      if (url !== undefined && seen === "") {
        assertMatch(url, /^http:\/\/127\.0\.0\.1:\d+\/$/);
        const page = await fetch(url);
        assertStringIncludes(await page.text(), "<title>Inspector</title>");
        const { body } = await fetch(`${url}events`);
        for await (const part of body!.pipeThrough(new TextDecoderStream())) {
          seen += part;
          if (seen.includes('"type":"written"')) break;
        }
        await guests.close(); // no more guests
      }
      if (isClosed || !out.includes("Kitchen is closed: no more")) continue;
      isClosed = true;
      const { status, body } = await fetch(`${url}nothing`); // it is still there
      await body!.cancel();
      assertEquals(status, 404);
      restaurant.kill("SIGINT");
    }
    assertEquals([(await restaurant.status).code, isClosed], [0, true]);
    for (const name of ["front of house", "kitchen", "oven", "ledger"]) {
      assertStringIncludes(seen, `"${name}"`);
    }
    assertEquals(seen.includes('"guest"'), false); // no data
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
