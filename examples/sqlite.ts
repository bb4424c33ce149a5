/**
 * A bank in SQLite. A hundred tasks transfer money at once, over one
 * connection: each reads two balances, awaits an approval, and writes. Three
 * ways to share the connection, and what becomes of the money.
 *
 *     deno run --allow-write examples/sqlite.ts
 */
import { DatabaseSync } from "node:sqlite";
import { Serializer } from "../mod.ts";

const ACCOUNTS = 10;
const CENTS = 1000_00; // in each account
const TASKS = 100;

interface Transfer {
  from: number;
  to: number;
  cents: number;
}

/** The same transfers for all: where to and how much follow from the task. */
const transfers: Transfer[] = Array.from({ length: TASKS }, (_, task) => ({
  from: task % ACCOUNTS,
  to: (task * 7 + 3) % ACCOUNTS,
  cents: 1 + task * 37 % 500,
}));

function openBank(): DatabaseSync {
  const bank = new DatabaseSync(":memory:");
  bank.exec("CREATE TABLE account (id INTEGER PRIMARY KEY, cents INTEGER)");
  const add = bank.prepare("INSERT INTO account VALUES (?, ?)");
  for (let id = 0; id < ACCOUNTS; id++) add.run(id, CENTS);
  return bank;
}

function balance(bank: DatabaseSync, id: number): number {
  const row = bank.prepare("SELECT cents FROM account WHERE id = ?").get(id);
  return Number(row?.cents);
}

function total(bank: DatabaseSync): number {
  const row = bank.prepare("SELECT sum(cents) AS cents FROM account").get();
  return Number(row?.cents);
}

/** Somebody has to approve of it: other tasks come in here. */
const approval = () => new Promise<void>((approved) => setTimeout(approved));

/** A transfer as one writes it, and as it is right while nobody else is there. */
async function transfer(
  bank: DatabaseSync,
  { from, to, cents }: Transfer,
): Promise<void> {
  bank.exec("BEGIN");
  try {
    const payer = balance(bank, from);
    const payee = balance(bank, to);
    await approval();
    const write = bank.prepare("UPDATE account SET cents = ? WHERE id = ?");
    write.run(payer - cents, from);
    write.run(payee + cents, to);
    bank.exec("COMMIT");
  } catch (error) {
    bank.exec("ROLLBACK");
    throw error;
  }
}

/** The same without a transaction: SQLite has nothing to refuse. */
async function looseTransfer(
  bank: DatabaseSync,
  { from, to, cents }: Transfer,
): Promise<void> {
  const payer = balance(bank, from);
  const payee = balance(bank, to);
  await approval();
  const write = bank.prepare("UPDATE account SET cents = ? WHERE id = ?");
  write.run(payer - cents, from);
  write.run(payee + cents, to);
}

/** Runs all transfers at once. Returns how many failed. */
async function atOnce(run: (transfer: Transfer) => Promise<void>) {
  const ends = await Promise.allSettled(transfers.map(run));
  return ends.filter(({ status }) => status === "rejected").length;
}

function print(way: string, refused: number, cents: number): void {
  const wrong = cents - ACCOUNTS * CENTS;
  const money = wrong === 0
    ? "the sum is right"
    : `${Math.abs(wrong)} cents have ${wrong > 0 ? "appeared" : "vanished"}`;
  console.log(`${way}: ${refused} transfers refused, ${money}`);
}

console.log(`${TASKS} transfers at once`);

{ // 1. Bare: everyone has the connection.
  const bank = openBank();
  print("bare", await atOnce((t) => transfer(bank, t)), total(bank));
  bank.close();
}
{
  const bank = openBank();
  const refused = await atOnce((t) => looseTransfer(bank, t));
  print("bare, without a transaction", refused, total(bank));
  bank.close();
}

{ // 2. A lock made by hand: right, as long as everyone remembers it.
  const bank = openBank();
  let last: Promise<unknown> = Promise.resolve();
  const locked = <T>(task: () => Promise<T>): Promise<T> => {
    const result = last.then(task);
    last = result.catch(() => {}); // without this, one error would stop them all
    return result;
  };
  const refused = await atOnce((t) => locked(() => transfer(bank, t)));
  print("lock", refused, total(bank));

  const [careful, forgetful] = await Promise.all([
    atOnce((t) => locked(() => transfer(bank, t))),
    atOnce((t) => transfer(bank, t)), // written by somebody new
  ]);
  print("lock, forgotten in one place", careful + forgetful, total(bank));
  bank.close();
}

{ // 3. A serializer: nobody has a connection to forget a lock for.
  await using bank = new Serializer({
    open: openBank,
    handle: transfer,
    close: (bank) => bank.close(),
  });
  const refused = await atOnce((t) => bank.request(t));
  print("serializer", refused, await bank.run(total));
}
