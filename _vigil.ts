/**
 * Watches over those who wait or work on Cloudflare's workers, where a task ends
 * without a word when the client of its request leaves.
 *
 * Internal: not an entry point of the package.
 *
 * @module
 */

const BEAT = 100; // ms
const EARLY = 10; // ms that a timer may be too early
const MISSED = 5; // beats in a row, before somebody counts as gone
const SILENCE = 1000; // ms without a beat, after which nothing is handed to somebody
const TURNS = 8; // of the microtask queue, in which more may come in one go
const FEW = 64; // members that nobody minds

let known: boolean | undefined; // to look it up is dearer than to wait

/** Whether tasks may end without a word here. */
export function losesTasks(): boolean {
  return known ??= looksLikeWorkers();
}

/** Forgets everybody, and where this runs: for tests that pretend to be elsewhere. */
export function forget(): void {
  known = coming = undefined;
  parties.clear();
}

function looksLikeWorkers(): boolean {
  const { navigator } = globalThis as { navigator?: { userAgent?: string } };
  return navigator?.userAgent === "Cloudflare-Workers";
}

/** What somebody is told who was lost and is there after all. */
export function silence(action: string): DOMException {
  return new DOMException(
    `Cannot ${action}: its request has been silent, as if it had ended; if it has not, try again`,
    "AbortError",
  );
}

/** Somebody to watch over. */
export interface Member {
  /** Whether it needs that no more, nor will again. */
  readonly over: boolean;
  /** Nothing is heard of its request any more. Makes it over. */
  lose(): void;
}

/**
 * Those who came in one go, and so belong to one request. They have a timer in
 * it, which also keeps the runtime from taking a request that waits for another
 * one for hung. If the timer stops, they are lost.
 *
 * A member who is over stays until the next beat: only the own request can stop
 * the timer, and often it is another one that serves a member.
 */
// Beats are counted, and not more than one at a time: after a handler that has
// kept the thread busy for long, everyone is late.
export class Party {
  #members: Member[] = [];
  #many = FEW;
  #missed = 0; // beats
  readonly since: number = Date.now();
  #heard = this.since;
  readonly #timer = setInterval(() => this.#beat(), BEAT);
  /** Takes in a member. */
  add(member: Member): void {
    if (this.#members.push(member) < this.#many) return;
    this.#sortOut();
    this.#many = 2 * this.#members.length + FEW;
  }

  /** Whether it has been silent for so long that it had better get nothing, although nobody has counted. */
  get silent(): boolean {
    return Date.now() - this.#heard > SILENCE;
  }

  /** Misses a beat, unless it has just been heard. */
  miss(now: number): void {
    if (isSoon(now, this.#heard) || this.#missed++ < MISSED) return;
    parties.delete(this);
    for (const member of this.#members) if (!member.over) member.lose();
  }

  #beat(): void {
    this.#sortOut();
    if (this.#members.length === 0) {
      clearInterval(this.#timer);
      parties.delete(this);
      return;
    }
    this.#missed = 0;
    this.#heard = Date.now();
    look();
  }

  #sortOut(): void {
    this.#members = this.#members.filter(({ over }) => !over);
  }
}

const parties = new Set<Party>();
let round = 0; // when beats were last counted
let coming: Party | undefined; // those who come in this go
let patience = 0; // turns until it ends

/** Watches over a member, whose request is the one that runs now, until it is over. */
export function watchOver(member: Member): Party | undefined {
  patience = TURNS;
  if (!isUnderWay()) coming = welcome();
  coming?.add(member);
  return coming;
}

/** Counts the beats that are missing, and tells those who have missed too many. */
export function look(): void {
  if (isUnderWay()) return; // in one go nobody else can beat
  const now = Date.now();
  if (isSoon(now, round)) return;
  round = now;
  for (const party of parties) party.miss(now);
}

function welcome(): Party | undefined {
  try {
    const party = new Party();
    parties.add(party);
    endGo(party);
    return party;
  } catch {
    // Outside of any request no timer may be set, and nothing gets lost.
  }
}

async function endGo(party: Party): Promise<void> {
  while (patience-- > 0) await undefined;
  if (coming !== party) return;
  coming = undefined;
  look();
}

/** Whether a go is under way: one that the runtime cuts off has no end. */
function isUnderWay(): boolean {
  return coming !== undefined && isSoon(Date.now(), coming.since);
}

/** Whether less than a beat has passed; the clock may have been set back. */
function isSoon(now: number, then: number): boolean {
  return Math.abs(now - then) < BEAT - EARLY;
}
