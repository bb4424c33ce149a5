// All that the package needs of a host's types, beside those of the language.
interface AbortSignal {
  readonly aborted: boolean;
}
// deno-lint-ignore no-explicit-any
interface ReadableStream<R = any> {
  cancel(reason?: R): Promise<void>;
}
// deno-lint-ignore no-explicit-any
interface WritableStream<W = any> {
  abort(reason?: W): Promise<void>;
}
