/**
 * How errors, and things that cannot be cloned, travel between threads.
 *
 * Internal: not an entry point of the package.
 *
 * @module
 */

import { show } from "./_errors.ts";

/** What goes instead of a thing; it can be cloned. */
export type Packed =
  | { readonly kind: "value"; readonly value: unknown }
  | { readonly kind: "lost"; readonly what: string }
  | { readonly kind: "list"; readonly items: readonly Packed[] }
  | PackedError;

/** What goes instead of an error. */
interface PackedError {
  readonly kind: "error";
  /** The name of the built-in class that it is, or descends from. */
  readonly type: string;
  readonly name: string;
  readonly message: string;
  readonly stack: string;
  /** What else it has. */
  readonly fields: readonly Field[];
}

interface Field {
  readonly key: string;
  readonly value: Packed;
  readonly enumerable: boolean;
}

/** The classes that are known on both sides. */
const BUILT_IN = Object.fromEntries(
  [
    Error,
    EvalError,
    RangeError,
    ReferenceError,
    SyntaxError,
    TypeError,
    URIError,
  ].map((type) => [type.name, type]),
);

/** Fields that an error may have without showing them in a loop. */
const HIDDEN = ["cause", "errors", "error", "suppressed"];

/** Packs anything. What cannot travel is named instead; nothing is thrown. */
export function pack(thing: unknown, above: readonly unknown[] = []): Packed {
  try {
    if (above.includes(thing)) return { kind: "lost", what: "a circle" };
    if (isError(thing)) return packError(thing, [...above, thing]);
    if (Array.isArray(thing) && thing.some(isError)) {
      const items = thing.map((item) => pack(item, [...above, thing]));
      return { kind: "list", items };
    }
    return { kind: "value", value: structuredClone(thing) };
  } catch {
    return { kind: "lost", what: show(thing) };
  }
}

/**
 * Unpacks what came from elsewhere. Errors are made anew: a built-in class stays
 * what it is, any other becomes the built-in one that it descends from, with its
 * own name. Their stacks go on with `here`, the stack of who asked.
 */
export function unpack(packed: Packed, here?: string): unknown {
  switch (packed.kind) {
    case "value":
      return packed.value;
    case "list":
      return packed.items.map((item) => unpack(item, here));
    case "lost":
      return `[${packed.what}, which cannot be sent to another thread]`;
    case "error":
      return unpackError(packed, here);
  }
}

/** Whether `thing` has the form of what {@linkcode pack} makes. */
export function isPacked(thing: unknown): thing is Packed {
  const { kind, what, items, fields } = Object(thing);
  return kind === "value" ||
    (kind === "lost" && typeof what === "string") ||
    (kind === "list" && Array.isArray(items) && items.every(isPacked)) ||
    (kind === "error" && Array.isArray(fields) &&
      fields.every((field) =>
        typeof field?.key === "string" && isPacked(field.value)
      ));
}

function isError(thing: unknown): thing is Error {
  return thing instanceof Error || isDOMException(thing);
}

function isDOMException(thing: unknown): thing is DOMException {
  return typeof DOMException === "function" && thing instanceof DOMException;
}

function packError(error: Error, above: readonly unknown[]): PackedError {
  const keys = new Set([
    ...HIDDEN.filter((key) => Object.hasOwn(error, key)),
    ...Object.keys(error),
  ]);
  for (const key of ["name", "message", "stack"]) keys.delete(key);
  const type = typeOf(error);
  return {
    kind: "error",
    type,
    name: nameOf(error, type),
    message: String(error.message),
    stack: String(error.stack ?? ""),
    fields: Array.from(keys, (key) => ({
      key,
      value: packField(error, key, above),
      enumerable: Object.prototype.propertyIsEnumerable.call(error, key),
    })),
  };
}

function packField(
  error: Error,
  key: string,
  above: readonly unknown[],
): Packed {
  try {
    return pack(error[key as keyof Error], above);
  } catch { // a getter
    return { kind: "lost", what: "a getter that throws" };
  }
}

/** The built-in class, or what is nearest to it. */
function typeOf(error: Error): string {
  if (isDOMException(error)) return "DOMException";
  if (error instanceof AggregateError) return "AggregateError";
  for (
    let prototype = Object.getPrototypeOf(error);
    prototype !== null;
    prototype = Object.getPrototypeOf(prototype)
  ) {
    const name = prototype.constructor?.name;
    if (Object.hasOwn(BUILT_IN, name)) return name;
  }
  return "Error";
}

/** Its name; if its class has given it none, that of the class. */
function nameOf(error: Error, type: string): string {
  const name = String(error.name);
  return name === type ? error.constructor?.name || name : name;
}

function unpackError(packed: PackedError, here: string | undefined): Error {
  const { type, name, message, stack, fields } = packed;
  const error = type === "DOMException"
    ? new DOMException(message, name)
    : type === "AggregateError"
    ? new AggregateError([], message)
    : new (BUILT_IN[type] ?? Error)(message);
  if (error.name !== name) hide(error, "name", name);
  for (const { key, value, enumerable } of fields) {
    Object.defineProperty(error, key, {
      value: unpack(value, undefined),
      enumerable,
      writable: true,
      configurable: true,
    });
  }
  hide(error, "stack", here === undefined ? stack : `${stack}\n${here}`);
  return error;
}

function hide(error: Error, key: string, value: string): void {
  Object.defineProperty(error, key, {
    value,
    enumerable: false,
    writable: true,
    configurable: true,
  });
}
