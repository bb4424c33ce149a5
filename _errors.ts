/**
 * What the modules share about errors.
 *
 * Internal: not an entry point of the package.
 *
 * @module
 */

/** The message for an option that is not what it must be. */
export function invalid(
  action: string,
  option: string,
  takes: string,
  found: unknown,
): string {
  return `Cannot ${action}: ${option} must be ${takes}, got ${show(found)}`;
}

/** How a message shows a value. */
export function show(found: unknown): string {
  if (typeof found === "string") return JSON.stringify(found);
  if (typeof found === "function") return "a function";
  if (Array.isArray(found)) return "an array";
  if (typeof found === "object" && found !== null) return "an object";
  if (typeof found === "bigint") return `${found}n`;
  return String(found);
}

/** How a message shows what was thrown, whatever it is. */
export function describe(thrown: unknown): string {
  try {
    if (!(thrown instanceof Error)) return show(thrown);
    const [name, message] = [String(thrown.name), String(thrown.message)];
    return message === "" ? name : `${name}: ${message}`;
  } catch { // it is a proxy, say
    return "an error that cannot be shown";
  }
}

/** Refuses what is neither an integer from `least` nor `Infinity`. */
export function checkCount(
  action: string,
  option: string,
  found: unknown,
  least: number,
): void {
  if (
    found === Infinity || (Number.isInteger(found) && found as number >= least)
  ) return;
  const Kind = typeof found === "number" ? RangeError : TypeError;
  throw new Kind(
    invalid(action, option, `an integer >= ${least} or Infinity`, found),
  );
}

/** Refuses what is not one of `names`; `orElse` says what would be taken besides. */
export function checkOneOf(
  action: string,
  option: string,
  found: unknown,
  names: readonly string[],
  orElse?: string,
): void {
  if (names.includes(found as string)) return;
  const Kind = typeof found === "string" ? RangeError : TypeError;
  const takes = names.map((name) => JSON.stringify(name));
  if (orElse !== undefined) takes.push(orElse);
  throw new Kind(
    invalid(
      action,
      option,
      `${takes.slice(0, -1).join(", ")} or ${takes.at(-1)}`,
      found,
    ),
  );
}

/** Refuses what is no policy for a full queue. */
export function checkOverflow(action: string, found: unknown): void {
  const names = ["wait", "reject", "drop-oldest", "drop-newest"];
  checkOneOf(action, "overflow", found, names);
}

/** Refuses what is not a string. */
export function checkString(
  action: string,
  option: string,
  found: unknown,
): void {
  if (typeof found === "string") return;
  throw new TypeError(invalid(action, option, "a string", found));
}

/** Refuses what is not a function. */
export function checkFunction(
  action: string,
  option: string,
  found: unknown,
): void {
  if (typeof found === "function") return;
  throw new TypeError(invalid(action, option, "a function", found));
}

/** Refuses what is not an object; `takes` says which. */
export function checkObject(
  action: string,
  option: string,
  found: unknown,
  takes = "an object",
): void {
  if (typeof found === "object" && found !== null) return;
  throw new TypeError(invalid(action, option, takes, found));
}

/** Gives an error that nobody waits for to the runtime's handler for uncaught errors. */
export function report(error: unknown): void {
  const { reportError } = globalThis as {
    reportError?: (error: unknown) => void;
  };
  if (reportError !== undefined) reportError(error);
  else {
    setTimeout(() => { // Node has no reportError
      throw error;
    });
  }
}
