// A worker that awaits something before it serves.
await new Promise((resolve) => setTimeout(resolve, 20));
await import("./kitchen.ts");
