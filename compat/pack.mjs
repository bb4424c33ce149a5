// The package as others get it: packed, installed in projects of its own,
// type-checked and run there. Prints like the hosts of run.mjs.
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { start } from "./start.mjs";

process.chdir(join(import.meta.dirname, ".."));
const { name, exports, publish } = JSON.parse(read("deno.json"));
const [, deno] = /^deno (.+)$/m.exec(read(".tool-versions"));
const modules = publish.include.filter((file) => file.endsWith(".ts"));
const entries = Object.values(exports).map((path) => path.slice(2));
const out = mkdtempSync(join(tmpdir(), "pack-"));
const tarball = join(out, "package.tgz");
const node = join(out, "node"); // a project for Node
const bun = join(out, "bun"); // and one for Bun
const installed = join(node, "node_modules", name);
const js = (module) => module.replace(/ts$/, "js");
const dts = (module) => module.replace(/ts$/, "d.ts");
let passed = 0, failed = 0;

try {
  await run(
    "npx",
    `--prefer-offline -y deno@${deno} pack --quiet --allow-dirty --output`
      .split(" ").concat(tarball),
  );
  for (const project of [node, bun]) {
    mkdirSync(project);
    cpSync("compat/consumer.ts", join(project, "consumer.ts"));
    write(join(project, "package.json"), { type: "module", private: true });
  }
  await run("npm", ["install", "--offline", "--no-audit", tarball], node);
  await run(".bin/bun", ["add", tarball], bun);

  await test("has each published file, and no other", () => {
    const others = publish.include.filter((file) => !file.endsWith(".ts"));
    const expected = [...others, ...modules.map(js), ...entries.map(dts)];
    expected[expected.indexOf("deno.json")] = "package.json";
    const found = readdirSync(installed)
      .filter((file) => !/^_.+\.d\.ts$/.test(file)); // of what modules hand on
    equal(found.sort(), expected.sort());
  });
  await test("has each export", () => {
    const { exports: packed } = JSON.parse(
      read(join(installed, "package.json")),
    );
    equal(Object.keys(packed).sort(), Object.keys(exports).sort());
  });
  await test("has source maps", () => {
    const without = modules.map(js).filter((file) =>
      !/^\/\/# sourceMappingURL=/m.test(read(join(installed, file)))
    );
    equal(without, []);
  });
  await test("is used by consumer.ts, each entry point", () => {
    const used = [...read("compat/consumer.ts").matchAll(/ from "(.+)"/g)];
    equal(
      used.map(([, path]) => path.replace(name, ".")).sort(),
      Object.keys(exports).sort(),
    );
  });
  await test("lacks [Symbol…] in its types: if not, delete mend()", () => {
    equal(/^\s+\[Symbol/m.test(read(join(installed, "queue.d.ts"))), false);
  });

  entries.forEach(mend);
  cpSync("tests", join(node, "tests"), {
    recursive: true,
    filter: (path) => path === "tests" || path.endsWith("types_test.ts"),
  });
  for (const file of readdirSync(join(node, "tests"))) {
    const path = join(node, "tests", file);
    const text = read(path).replace(
      / from "\.\.\/(\w+)\.ts"/g,
      ` from "${name}/$1"`,
    );
    writeFileSync(path, text);
  }
  writeFileSync(
    join(node, "tests.d.ts"),
    `declare module "@std/assert" { export function assert(it: unknown): asserts it; }
     declare const Deno: { test(name: string, test: () => unknown): void };`,
  );
  // All that it needs of a host's types, beside those of the language.
  const host = [
    "AbortSignal",
    "ReadableStream<T>",
    "Request",
    "Response",
    "URL",
    "WritableStream<T>",
  ];
  const declarations = host.map((type) => `interface ${type} {}`).join("\n");
  writeFileSync(join(node, "host.d.ts"), declarations);
  const main = ["consumer.ts"];
  const hostless = [...main, "host.d.ts"];
  const nodenext = { module: "nodenext" };
  const bundler = { module: "esnext", moduleResolution: "bundler" };
  const dom = { lib: ["esnext", "dom"] };
  for (const [how, resolution] of Object.entries({ bundler, nodenext })) {
    await test(`type-checks, ${how}, in pages`, () =>
      check(main, { ...resolution, ...dom }));
    await test(`type-checks, ${how}, with the types of Node 20`, () => {
      const typeRoots = [join(import.meta.dirname, "node_modules/@types")];
      return check(main, { ...resolution, types: ["node"], typeRoots });
    });
    await test(`passes our tests of types, ${how}`, () =>
      check(["tests.d.ts", "tests/*.ts"], { ...resolution, ...dom }));
    await test(`type-checks, ${how}, without host types`, () =>
      check(hostless, resolution));
  }
  await test("compiles to JavaScript", () =>
    check(hostless, { ...nodenext, noEmit: false }));
  await test("needs those types of the host, and no others", async () => {
    const { output } = await tsc(main, nodenext);
    const missing = output.matchAll(/Cannot find name '(\w+)'/g);
    const names = new Set(Array.from(missing, ([, name]) => name));
    equal([...names].sort(), host.map((type) => type.replace("<T>", "")));
  });
  for (const version of ["node20", "node24"]) {
    await test(`runs on ${version}`, () =>
      run(`${version}/bin/node`, ["consumer.js"], node));
  }
  await test("runs on Bun", () =>
    run(".bin/bun", ["--no-install", "consumer.ts"], bun));
} finally {
  rmSync(out, { recursive: true });
}
console.log(`${passed} passed, ${failed} failed, 0 skipped`);
process.exitCode = failed > 0 ? 1 : 0;

async function test(name, body) {
  try {
    await body();
    passed++;
  } catch (error) {
    failed++;
    console.log(`not ok ${name}\n${error.message}`);
  }
}

/** Runs a program; throws what it printed if it fails. */
async function run(program, args, cwd) {
  const { output, error } = await start(program, args, { cwd });
  if (error) throw new Error(`${program} ${error}\n${output}`);
}

/** Runs tsc in the project for Node. */
async function tsc(include, options) {
  const compilerOptions = {
    target: "es2022",
    lib: ["esnext"],
    types: [],
    strict: true,
    skipLibCheck: false,
    noEmit: true,
    ...options,
  };
  write(join(node, "tsconfig.json"), { compilerOptions, include });
  return await start(".bin/tsc", [], { cwd: node });
}

/** Throws unless types are right. */
async function check(include, options) {
  const { output, error } = await tsc(include, options);
  if (error) throw new Error(output);
}

/**
 * Gives types the members whose names are well-known symbols. `deno pack` leaves
 * them out (denoland/deno#36567); JSR does not any more (jsr-io/jsr#1535).
 */
function mend(entry) {
  const path = join(installed, dts(entry));
  const classes = read(entry).matchAll(/^export .*\bclass (\w+)([^]+?)^}/gm);
  let types = read(path);
  for (const [, name, body] of classes) {
    const members = [
      ...body.matchAll(/^ {2}((?:abstract )?\[Symbol\.\w+\]\(\):[^;{]+)/gm),
    ].map(([, member]) => `${member.trimEnd()};\n`).join("");
    const head = new RegExp(`\\bclass ${name}\\b.*\\{\n`);
    types = types.replace(head, (head) => head + members);
  }
  writeFileSync(path, types);
}

function read(path) {
  return readFileSync(path, "utf8");
}

function write(path, data) {
  writeFileSync(path, JSON.stringify(data));
}

function equal(...values) {
  const [actual, expected] = values.map((it) => JSON.stringify(it, null, 1));
  if (actual !== expected) throw new Error(`${actual} is not ${expected}`);
}
