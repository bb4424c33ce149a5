// Node 24 runs the TypeScript as it is: this resolves the bare names in it by
// the paths in tsconfig.json, as Bun and esbuild do by themselves.
import { readFileSync } from "node:fs";
import { registerHooks } from "node:module";

const tsconfig = new URL("tsconfig.json", import.meta.url);
const { paths } = JSON.parse(readFileSync(tsconfig, "utf8")).compilerOptions;

registerHooks({
  resolve(name, context, next) {
    for (const [pattern, [target]] of Object.entries(paths)) {
      const start = pattern.replace("*", "");
      if (start === pattern ? name === start : name.startsWith(start)) {
        const path = target.replace("*", name.slice(start.length));
        return next(new URL(path, tsconfig).href, context);
      }
    }
    return next(name, context);
  },
});
