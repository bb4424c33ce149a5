// A worker that never says that it is ready.
globalThis.setInterval(() => {}, 1000);
