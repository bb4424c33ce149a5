/** The ledger: a database that notes what was served. */
import type { Order } from "./orders.ts";

/** What the ledger needs of SQLite: `node:sqlite` in Deno and Node, `bun:sqlite` in Bun. */
interface Database {
  exec(sql: string): void;
  prepare(sql: string): {
    run(...values: (string | number)[]): unknown;
    get(): unknown;
  };
  close(): void;
}

/** How much was served. */
export interface Totals {
  orders: number;
  portions: number;
}

/** One connection. Two tasks that write at once would be in one transaction. */
export class Ledger implements Disposable {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Opens a file with an empty ledger. */
  static async open(file: string): Promise<Ledger> {
    const name = "Bun" in globalThis ? "bun:sqlite" : "node:sqlite";
    const sqlite = await import(name);
    const database = new (sqlite.DatabaseSync ?? sqlite.Database)(file);
    database.exec("PRAGMA journal_mode = WAL"); // a commit need not wait for the disk
    database.exec("PRAGMA synchronous = NORMAL");
    database.exec("DROP TABLE IF EXISTS served");
    database.exec("CREATE TABLE served (line, guest, dish, portions)");
    return new Ledger(database);
  }

  /** Writes all orders, or none. */
  write(orders: Order[]): void {
    const add = this.#database.prepare(
      "INSERT INTO served VALUES (?, ?, ?, ?)",
    );
    this.#database.exec("BEGIN");
    try {
      for (const { line, guest, dish, portions } of orders) {
        add.run(line, guest, dish, portions);
      }
      this.#database.exec("COMMIT");
    } catch (error) {
      this.#database.exec("ROLLBACK");
      throw error;
    }
  }

  /** Reads it all back. */
  totals(): Totals {
    return this.#database.prepare(
      "SELECT count(*) AS orders, coalesce(sum(portions), 0) AS portions FROM served",
    ).get() as Totals;
  }

  [Symbol.dispose](): void {
    this.#database.close();
  }
}
