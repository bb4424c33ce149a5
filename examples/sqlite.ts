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

function balances(bank: DatabaseSync): number[] {
  const rows = bank.prepare("SELECT cents FROM account ORDER BY id").all();
  return rows.map((row) => Number(row.cents));
}

/** The balances that follow from those transfers. */
function balancesAfter(transfers: Transfer[]): number[] {
  const balances = Array<number>(ACCOUNTS).fill(CENTS);
  for (const { from, to, cents } of transfers) {
    balances[from] -= cents;
    balances[to] += cents;
  }
  return balances;
}

/** Somebody has to approve of it: other tasks come in here. */
const approval = () => new Promise<void>((approved) => setTimeout(approved));

/** A transfer as one writes it, and as it is right while nobody else is there. */
async function transfer(
  bank: DatabaseSync,
  { from, to, cents }: Transfer,
): Promise<void> {
  try {
    bank.exec("BEGIN");
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

/** Runs all transfers at once. Returns those that were not refused. */
async function atOnce(
  run: (transfer: Transfer) => Promise<void>,
): Promise<Transfer[]> {
  const ends = await Promise.allSettled(transfers.map(run));
  return transfers.filter((_, task) => ends[task].status === "fulfilled");
}

/** Prints what became of so many transfers, of which some were done, as far as they know. */
function print(
  way: string,
  asked: number,
  done: Transfer[],
  balances: number[],
): void {
  const expected = balancesAfter(done);
  const wrong = balances.filter((cents, id) => cents !== expected[id]).length;
  const sum = balances.reduce((a, b) => a + b) - ACCOUNTS * CENTS;
  const money = sum === 0
    ? "the sum is right"
    : `${Math.abs(sum)} cents have ${sum > 0 ? "appeared" : "vanished"}`;
  const refused = asked - done.length;
  console.log(
    `${way}: ${refused} transfers refused, ${wrong} balances wrong, ${money}`,
  );
}

console.log(`${TASKS} transfers at once`);

{ // 1. Bare: everyone has the connection.
  const bank = openBank();
  const done = await atOnce((t) => transfer(bank, t));
  print("bare", TASKS, done, balances(bank));
  bank.close();
}
{
  const bank = openBank();
  const done = await atOnce((t) => looseTransfer(bank, t));
  print("bare, without a transaction", TASKS, done, balances(bank));
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
  const done = await atOnce((t) => locked(() => transfer(bank, t)));
  print("lock", TASKS, done, balances(bank));

  const [careful, forgetful] = await Promise.all([
    atOnce((t) => locked(() => transfer(bank, t))),
    atOnce((t) => transfer(bank, t)), // written by somebody new
  ]);
  const all = [...done, ...careful, ...forgetful];
  print("lock, forgotten in one place", 3 * TASKS, all, balances(bank));
  bank.close();
}

{ // 3. A serializer: nobody has a connection to forget a lock for.
  await using bank = new Serializer({
    open: openBank,
    handle: transfer,
    close: (bank) => bank.close(),
  });
  const done = await atOnce((t) => bank.request(t));
  print("serializer", TASKS, done, await bank.run(balances));
}
