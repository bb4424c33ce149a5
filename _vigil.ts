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
const TURNS = 8; // of the microtask queue, in which more may come in one go; more and more,
const MOST_TURNS = 256; // as long as one go follows the other without a beat
const FEW = 64; // members, too few to look for those who are over

let known: boolean | undefined; // to look it up is dearer than to wait

/** Whether tasks may end without a word here. */
export function losesTasks(): boolean {
  return known ??= looksLikeWorkers();
}

/** Forgets everybody, and where this runs: for tests that pretend to be elsewhere. */
export function forget(): void {
  known = coming = undefined;
  turns = TURNS;
}

function looksLikeWorkers(): boolean {
  const { navigator } = globalThis as { navigator?: { userAgent?: string } };
  return navigator?.userAgent === "Cloudflare-Workers";
}

/** What somebody is told who was taken for lost. */
export function lost(action: string): DOMException {
  return new DOMException(
    `Cannot ${action}: its request has been silent, as if it had ended; if it has not, try again`,
    "AbortError",
  );
}

/** Somebody to watch over. */
export interface Member {
  /** Whether that is not needed any more, nor will be again. */
  readonly over: boolean;
  /** Nothing is heard of its request any more; it is over now. */
  lose(): void;
}

/**
 * Those who came in one go, and so belong to one request. They have a timer in
 * it, which also keeps the runtime from taking a request that waits for another
 * one for hung. If the timer stops, they are lost.
 */
export class Party {
  /** When they came, by the clock. */
  readonly since: number = Date.now();
  readonly #timer = setInterval(() => this.#beat(), BEAT);
  readonly #groups = new Map<object, Group>();
  #heard = this.since;

  /** Takes in a member, who waits or works at `place`. */
  add(member: Member, place: object): void {
    let group = this.#groups.get(place);
    if (group === undefined) {
      group = new Group(Circle.at(place));
      this.#groups.set(place, group);
    }
    group.add(member);
  }

  /** Whether nothing was heard of them for so long that they had better get nothing, although nobody has counted. */
  get silent(): boolean {
    return Date.now() - this.#heard > SILENCE;
  }

  /** Looks for others who are lost. */
  look(): void {
    for (const place of this.#groups.keys()) look(place);
  }

  #beat(): void {
    this.#heard = Date.now();
    turns = TURNS;
    for (const [place, group] of this.#groups) {
      if (!group.beat()) this.#groups.delete(place);
    }
    if (this.#groups.size === 0) clearInterval(this.#timer);
  }
}

/** The members of one party at one place. */
// One who is over stays until the next beat: only the own request can stop the
// timer, and often it is another one that serves a member.
class Group {
  readonly #circle: Circle;
  #members: Member[] = [];
  #many = FEW; // members, of whom some are over
  #inRound = false; // whether they were heard in this round
  #missed = 0; // rounds

  constructor(circle: Circle) {
    this.#circle = circle;
    circle.groups.add(this);
  }

  add(member: Member): void {
    if (this.#members.push(member) < this.#many) return;
    this.#sortOut();
    this.#many = 2 * this.#members.length + FEW;
  }

  /** They are heard of; returns whether any of them is left. */
  beat(): boolean {
    if (this.#inRound) this.#circle.endRound(); // all others have had their turn
    this.#inRound = true;
    this.#missed = 0;
    this.#circle.heard = Date.now();
    this.#sortOut();
    const left = this.#members.length > 0;
    if (!left) this.#circle.groups.delete(this);
    return left;
  }

  /** A round is over: they have missed it, unless they have been heard in it. */
  endRound(): void {
    if (this.#inRound) {
      this.#inRound = false;
      return;
    }
    if (this.#missed++ < MISSED) return;
    this.#circle.groups.delete(this);
    for (const member of this.#members) if (!member.over) member.lose();
  }

  #sortOut(): void {
    this.#members = this.#members.filter(({ over }) => !over);
  }
}

/** All who wait or work at one place. Those of them who are alive count what others miss. */
// Beats are counted in rounds, and not by the clock: when there is more to do than
// can be done, everyone is late, and timers still come one after another. They are
// counted at each place by itself: in a Durable Object all timers may be held up
// for long, while those of another one in the same process go on.
class Circle {
  readonly groups: Set<Group> = new Set();
  /** When anybody here was last heard of. */
  heard = 0;
  #round = 0; // when it began

  static at(place: object): Circle {
    let circle = circles.get(place);
    if (circle === undefined) circles.set(place, circle = new Circle());
    return circle;
  }

  endRound(): void {
    this.#round = Date.now();
    for (const group of this.groups) group.endRound();
  }

  /** Ends the round in place of timers, if none is heard of: all may be lost, or only late. */
  look(): void {
    const now = Date.now();
    if (
      Math.abs(now - this.#round) > SILENCE &&
      Math.abs(now - this.heard) > SILENCE
    ) this.endRound();
  }
}

const circles = /* @__PURE__ */ new WeakMap<object, Circle>();
let coming: Party | undefined; // those who come in this go
let turns = TURNS; // how many without a newcomer end it
let patience = 0; // how many are left of them

/**
 * Watches over a member, whose request is the one that runs now, until it is
 * over; outside of any, it can't. Who shares a `place` notices when the other is lost.
 */
export function watchOver(member: Member, place: object): Party | undefined {
  patience = turns;
  if (!isUnderWay()) coming = welcome();
  coming?.add(member, place);
  return coming;
}

/** Looks for those who are lost at a place. */
export function look(place: object): void {
  Circle.at(place).look();
}

function welcome(): Party | undefined {
  try {
    const party = new Party();
    endGo(party);
    return party;
  } catch {
    // Outside of any request no timer may be set.
  }
}

async function endGo(party: Party): Promise<void> {
  while (patience-- > 0) await undefined;
  if (coming !== party) return;
  coming = undefined;
  turns = Math.min(2 * turns, MOST_TURNS);
  party.look();
}

/** Whether a go is under way: one that the runtime cuts off has no end. */
function isUnderWay(): boolean {
  return coming !== undefined &&
    Math.abs(Date.now() - coming.since) < BEAT - EARLY; // it may be set back
}
