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
  | { readonly kind: "object"; readonly fields: readonly Field[] }
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
const BUILT_IN: readonly ErrorConstructor[] = [
  Error,
  EvalError,
  RangeError,
  ReferenceError,
  SyntaxError,
  TypeError,
  URIError,
];

/** The class of a name, if it is known on both sides. */
function builtIn(name: unknown): ErrorConstructor | undefined {
  return BUILT_IN.find((type) => type.name === name);
}

/** Fields that an error may have without showing them in a loop. */
const HIDDEN = ["cause", "errors", "error", "suppressed"];

/** Fields that travel by themselves. */
const SPECIAL = ["name", "message", "stack"];

/** How deep packed things may lie in each other, and how many there may be. */
const MAX_DEPTH = 100;
const MAX_COUNT = 10_000;

/** Packs anything. What cannot travel is named instead; nothing is thrown. */
export function pack(thing: unknown): Packed {
  return new Packer().pack(thing);
}

/** Packs one thing, with all that is in it. */
class Packer {
  /** What the thing at hand lies in, from the outermost. */
  readonly #above: unknown[] = [];
  #count = 1;

  pack(thing: unknown): Packed {
    if (this.#above.includes(thing)) return lost("a circle");
    if (this.#above.length >= MAX_DEPTH - 1) {
      return lost(`${name(thing)} that lies too deep`);
    }
    this.#above.push(thing);
    try {
      if (isError(thing)) return this.#error(thing);
      if (isPlain(thing) && holdsError(thing)) return this.#parts(thing);
      try {
        return { kind: "value", value: structuredClone(thing) };
      } catch {
        return isPlain(thing) ? this.#parts(thing) : lost(name(thing));
      }
    } catch { // it is a proxy, say
      return lost(name(thing));
    } finally {
      this.#above.pop();
    }
  }

  #parts(thing: object): Packed {
    const isArray = Array.isArray(thing);
    const keys = isArray ? [] : Reflect.ownKeys(thing)
      .filter((key) => isEnumerable(thing, key));
    if (!this.#hasRoom(isArray ? thing.length : keys.length)) {
      return lost(`${name(thing)} of too much`);
    }
    return isArray
      ? { kind: "list", items: Array.from(thing, (item) => this.pack(item)) }
      : { kind: "object", fields: this.#fields(thing, keys) };
  }

  #error(error: Error): Packed {
    const type = typeOf(error);
    const stack = text(() => error.stack ?? ""); // first: Bun makes it when asked for any field, and may throw
    const keys = Reflect.ownKeys(error).filter((key) =>
      HIDDEN.includes(key as string) ||
      isEnumerable(error, key) && !SPECIAL.includes(key as string) &&
        !(type === "DOMException" && typeof key === "symbol") // the runtime's
    );
    if (!this.#hasRoom(keys.length)) {
      return lost("an error that holds too much");
    }
    return {
      kind: "error",
      type,
      name: text(() => nameOf(error, type)),
      message: text(() => error.message),
      stack,
      fields: this.#fields(error, keys),
    };
  }

  #hasRoom(parts: number): boolean {
    const isRoom = this.#count + parts <= MAX_COUNT;
    if (isRoom) this.#count += parts;
    return isRoom;
  }

  #fields(thing: object, keys: readonly PropertyKey[]): Field[] {
    return Array.from(keys, (key) => ({
      key: String(key),
      value: this.#field(thing, key),
      enumerable: isEnumerable(thing, key),
    }));
  }

  #field(thing: object, key: PropertyKey): Packed {
    let value: unknown;
    try {
      value = thing[key as keyof typeof thing];
    } catch {
      return lost("a getter that throws");
    }
    return this.pack(value);
  }
}

function lost(what: string): Packed {
  return { kind: "lost", what };
}

function name(thing: unknown): string {
  try {
    return show(thing);
  } catch { // a proxy that is revoked
    return "an object that cannot be read";
  }
}

function text(read: () => unknown): string {
  try {
    return String(read());
  } catch {
    return "[a getter that throws]";
  }
}

function isEnumerable(thing: object, key: PropertyKey): boolean {
  return Object.prototype.propertyIsEnumerable.call(thing, key);
}

/** Whether it is an array, or an object of no class. */
function isPlain(thing: unknown): thing is object {
  if (typeof thing !== "object" || thing === null) return false;
  if (Array.isArray(thing)) return true;
  const prototype = Object.getPrototypeOf(thing);
  return prototype === Object.prototype || prototype === null;
}

/** Whether an error lies somewhere in arrays and objects of no class. */
function holdsError(thing: object): boolean {
  const found = new Set<object>([thing]);
  for (const { value, get } of ownOfAll(found)) {
    if (get !== undefined) continue;
    if (isError(value)) return true;
    if (isPlain(value)) found.add(value);
  }
  return false;
}

/** What is in each object of a set, which may grow meanwhile. */
function* ownOfAll(things: Set<object>): Generator<PropertyDescriptor> {
  for (const thing of things) {
    if (!Array.isArray(thing)) {
      yield* Object.values(Object.getOwnPropertyDescriptors(thing));
    } else for (const value of thing) yield { value };
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
    case "object":
      return withFields({}, packed.fields);
    case "lost":
      return `[${packed.what}, which cannot be sent to another thread]`;
    case "error":
      return unpackError(packed, here);
  }
}

/** Whether `thing` has the form of what {@linkcode pack} makes. */
export function isPacked(thing: unknown): thing is Packed {
  let count = 0;
  return isPart(thing, 1);

  function isPart(thing: unknown, depth: number): boolean {
    // A circle has no end, and what is met on many ways grows beyond measure.
    if (depth > MAX_DEPTH || ++count > MAX_COUNT) return false;
    const { kind, what, items, fields } = Object(thing);
    const areFields = () =>
      Array.isArray(fields) &&
      fields.every((field) =>
        typeof field?.key === "string" &&
        typeof field.enumerable === "boolean" &&
        isPart(field.value, depth + 1)
      );
    switch (kind) {
      case "value":
        return true;
      case "lost":
        return typeof what === "string";
      case "list":
        return Array.isArray(items) &&
          items.every((item) => isPart(item, depth + 1));
      case "object":
        return areFields();
      case "error": {
        const { type, name, message, stack } = thing as PackedError;
        return [type, name, message, stack].every((part) =>
          typeof part === "string"
        ) && areFields();
      }
      default:
        return false;
    }
  }
}

function isError(thing: unknown): thing is Error {
  return thing instanceof Error || isDOMException(thing);
}

function isDOMException(thing: unknown): thing is DOMException {
  return typeof DOMException === "function" && thing instanceof DOMException;
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
    if (builtIn(name) !== undefined) return name;
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
    : new (builtIn(type) ?? Error)(message);
  if (error.name !== name) hide(error, "name", name);
  withFields(error, fields);
  hide(error, "stack", here === undefined ? stack : `${stack}\n${here}`);
  return error;
}

function withFields(thing: object, fields: readonly Field[]): object {
  for (const { key, value, enumerable } of fields) {
    Object.defineProperty(thing, key, {
      value: unpack(value),
      enumerable,
      writable: true,
      configurable: true,
    });
  }
  return thing;
}

function hide(error: Error, key: string, value: string): void {
  Object.defineProperty(error, key, {
    value,
    enumerable: false,
    writable: true,
    configurable: true,
  });
}
