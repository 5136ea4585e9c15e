/**
 * A session on the server that is kept at a place of the text: only the difference is ever sent.
 *
 * Boundary: texts and offsets in, scores and predictions out. Whatever fails leaves it such that the same step can be
 * asked again; when to, is `follower.js`.
 *
 * The session has read `#read`, which stands at `#base` in the text and ends between words. It was made of what is before
 * `#madeAt`, and knows the position of every token since. An edit before its end takes it back by a rewind, or makes it anew
 * where that is too far. While an answer is out, where the session stands is not
 * known; should the answer get lost, the next step begins with a rewind to the last place that is certain.
 */

import { Lost, Refusal, address, ask, model } from "./api.js";
import { fields as keyFields } from "./key.js";
import { Talk } from "./talk.js";
import { pieceEnd, placed, shared, wellFormed, wordStart, wordsBefore } from "./text.js";

/** Most characters read by one frame: a long text is coloured as it is read. */
const PIECE = 4_000;
/** Words before the place that a new session reads one by one, so as to know the way back over them. */
const WAY_BACK = 40;
/** Seconds that an unused session lives. */
const TTL = 3_600;
const SUGGESTIONS = 5;
const REWIND_REFUSED = new Set([401, 404, 409, 422]);

export class Session {
  #id = null;
  #talk = null;
  #base = 0;
  #madeAt = 0;
  #read = "";
  /** Where each token ends that was read since the session was made, and the position before the first of them. */
  #ends = [];
  #first = 0;
  #earliest = 0;
  #certain = true;
  #isPersonal = false;
  #wantsPersonal;

  /** `wantsPersonal()` says whether the server is to learn from what is typed. */
  constructor(wantsPersonal) {
    this.#wantsPersonal = wantsPersonal;
  }

  /** Go towards `start` in `text`, at most a piece; ask for what comes next there. */
  async step({ text, start, prefix }, { whole, window, known }) {
    const other = this.#isPersonal !== this.#wantsPersonal();
    if (this.#id === null || other || !this.#reaches(text, start, whole)) await this.#create(text, start, whole, window, known);
    let cut = this.#cut(text, start);
    if (cut < this.#base || this.#positionAt(cut) < this.#earliest) {
      await this.#create(text, start, whole, window, known);
      cut = this.#cut(text, start);
    }
    const position = this.#positionAt(cut);
    const wasCertain = this.#certain;
    const goesBack = !wasCertain || cut < this.#base + this.#read.length;
    const talk = await this.#open();
    const until = pieceEnd(text, cut, PIECE, start);
    const piece = wellFormed(text.slice(cut, until));
    this.#forget(cut);
    this.#certain = false;
    const rewind = goesBack ? talk.ask({ type: "rewind", position }).catch(refusedRewind) : null;
    // Both at once are faster; where something went wrong, one at a time asks less of a server that has little room.
    if (!wasCertain) await rewind;
    const fields = { text: piece, prefix, k: SUGGESTIONS, words_only: true, expected_position: position };
    const [answer] = await Promise.all([talk.ask({ type: "append", ...fields }).catch(withdrawn), rewind]);
    this.#certain = true;
    const tokens = placed(answer.tokens, piece, cut);
    this.#read += text.slice(cut, until);
    this.#ends.push(...tokens.map((token) => token.end));
    this.#earliest = answer.earliest_position;
    return { from: cut, until, tokens, predictions: answer.predictions };
  }

  /** Let the model write on from where the session stands, which it keeps. */
  async write(fields, onToken, signal) {
    const talk = await this.#open();
    const position = this.#first + this.#ends.length;
    const frame = { type: "continue", stream: true, commit: false, expected_position: position, ...fields };
    return talk.ask(frame, { onToken, signal });
  }

  /** Make it anew at the next step: it has expired, or nobody knows where it stands. */
  abandon() {
    this.#talk?.close();
    this.#talk = null;
    this.#id = null;
  }

  /** Leave nothing behind on the server. */
  end() {
    if (this.#id !== null) drop(this.#id);
    this.abandon();
  }

  async #create(text, start, whole, window, known) {
    this.end();
    const base = start <= whole ? 0 : pieceEnd(text, start - window, 0, start);
    const at = wordsBefore(text, start <= whole ? Math.min(wordStart(text, known), start) : start, WAY_BACK, base);
    const fields = { text: wellFormed(text.slice(base, at)), ttl: TTL, personal: this.#wantsPersonal(), ...model };
    const answer = await ask("POST", "sessions", fields);
    this.#id = answer.session_id;
    this.#isPersonal = answer.personal !== undefined;
    this.#base = base;
    this.#read = text.slice(base, at);
    this.#ends = [];
    this.#first = answer.position;
    this.#earliest = Math.max(answer.earliest_position, answer.position);
    this.#madeAt = at;
    this.#certain = true;
  }

  async #open() {
    if (this.#talk?.isOpen) return this.#talk;
    try {
      this.#talk = await Talk.open(this.#id);
    } catch (error) {
      // A page is not told why its WebSocket was refused. Asked for plainly, the server says it.
      await ask("GET", `sessions/${encodeURIComponent(this.#id)}`);
      throw error;
    }
    return this.#talk;
  }

  /** Whether what is ahead is little enough to be read, rather than to begin again nearer to it. */
  #reaches(text, start, whole) {
    return start >= this.#base && start - this.#base - this.#read.length <= whole;
  }

  /** Up to where what was read is still the text's, and not beyond `start`; between words. -1 where nothing is. */
  #cut(text, start) {
    const target = text.slice(this.#base, start);
    const common = shared(this.#read, target);
    const cut = this.#base + (common === this.#read.length ? common : wordStart(target, common));
    return cut < this.#madeAt ? -1 : cut;
  }

  #positionAt(cut) {
    let count = this.#ends.length;
    while (count > 0 && this.#ends[count - 1] > cut) count -= 1;
    return this.#first + count;
  }

  #forget(cut) {
    this.#ends.length = this.#positionAt(cut) - this.#first;
    this.#read = this.#read.slice(0, cut - this.#base);
  }
}

/** A rewind that is refused says that the session is not what was thought; it is told from a refused text by its class. */
export class Astray extends Lost {}

function refusedRewind(error) {
  throw error instanceof Refusal && REWIND_REFUSED.has(error.status) ? new Astray(error.message) : error;
}

/** Where the key holds no more, the session is made anew: that asks for another key. */
function withdrawn(error) {
  throw error instanceof Refusal && error.status === 401 ? new Astray(error.message) : error;
}

function drop(id) {
  fetch(address(`sessions/${encodeURIComponent(id)}`), { method: "DELETE", headers: keyFields(), keepalive: true }).catch(() => {});
}
