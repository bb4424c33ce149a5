// A worker that cannot be loaded.
await undefined;
throw new RangeError("thrown at import");
