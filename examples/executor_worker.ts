/** The thread of executor.ts that has the database: SQLite blocks whoever calls it. */
import { serve } from "../worker.ts";

/** What `node:sqlite` and `bun:sqlite` have in common. */
interface Database {
  prepare(sql: string): { get(...values: number[]): unknown };
  close(): void;
}

/** Counts up to `n`: a query that takes as long as one wants. */
const COUNT = `WITH RECURSIVE numbers(i) AS (
  SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < ?
) SELECT count(*) AS count FROM numbers`;

/** Opens an empty database in memory. */
export async function open(): Promise<Database> {
  if ("Bun" in globalThis) {
    const bun = "bun:sqlite"; // a name that only Bun resolves
    const { Database } = await import(bun);
    return new Database(":memory:");
  }
  const { DatabaseSync } = await import("node:sqlite");
  return new DatabaseSync(":memory:");
}

/** Counts up to `n`. */
export function count(database: Database, n: number): number {
  return (database.prepare(COUNT).get(n) as { count: number }).count;
}

/** What is served here. */
const counter = {
  open,
  handle: count,
  close: (database: Database): void => database.close(),
};
export type Counter = typeof counter;

// executor.ts imports this file as well, for the functions.
const { isMainThread } = await import("node:worker_threads");
if (!isMainThread) serve(counter);
