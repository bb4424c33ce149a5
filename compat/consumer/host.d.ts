// All that the package needs of a host's types, beside those of the language.
interface AbortSignal {
  readonly aborted: boolean;
}
interface ReadableStream<R = any> {
  cancel(reason?: R): Promise<void>;
}
interface WritableStream<W = any> {
  abort(reason?: W): Promise<void>;
}
