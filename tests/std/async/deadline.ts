/** Settles as `p` does, or rejects with a TimeoutError after `ms` milliseconds. */
export function deadline<T>(p: Promise<T>, ms: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new DOMException("Signal timed out.", "TimeoutError")),
      ms,
    );
    p.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
