/**
 * Keeps the session where the editor is: one request at a time, always for the newest state, again and again until it
 * is answered.
 *
 * Boundary: states of the editor in; scores and suggestions out, each told only while it is still true. States are
 * compared by identity: an answer to one that is not the newest any more brings scores, and never suggestions.
 */

import { Refusal, ask, delay, isTemporary, model, reason } from "./api.js";
import { Astray } from "./session.js";
import { placed, wellFormed } from "./text.js";

/** Longer words are in no vocabulary, and are not sent to be completed. */
const LONGEST_PREFIX = 100;
/** Pause after which what stands after the word at the caret is scored too. */
const PAUSE_MS = 350;
/** After so long without an answer, that is said. */
const SLOW_MS = 1_500;
const SLOW = "The server is slow to answer. What you typed is kept.";

export class Follower {
  #session;
  #sizes;
  #notice;
  #tell;
  #wanted = null;
  #answered = null;
  #running = false;
  #refused = false;
  #waiters = [];
  #aside = null;
  #pause = null;

  /**
   * `sizes()` says how long a text is read as a whole and how much of a longer one; `tell` has `known()`,
   * `scores(state, from, tokens)` and `suggestions(state, predictions)`.
   */
  constructor(session, sizes, notice, tell) {
    this.#session = session;
    this.#sizes = sizes;
    this.#notice = notice;
    this.#tell = tell;
  }

  /** Be at this state from now on. */
  follow(state) {
    this.#wanted = state;
    clearTimeout(this.#pause);
    this.#aside?.abort();
    if (!this.#running) this.#run();
  }

  /** Resolves once the session is where it is wanted: true; or the server refused to go there: false. */
  async arrived() {
    if (this.#running) await new Promise((resolve) => this.#waiters.push(resolve));
    return !this.#refused;
  }

  async #run() {
    this.#running = true;
    let failures = 0;
    while (this.#answered !== this.#wanted) {
      const slow = setTimeout(() => this.#notice.say(SLOW, "wait"), SLOW_MS);
      try {
        await this.#step(this.#wanted);
        clearTimeout(slow);
        failures = 0;
      } catch (error) {
        clearTimeout(slow);
        await this.#recover(error, failures);
        failures += 1;
      }
    }
    this.#running = false;
    for (const resolve of this.#waiters.splice(0)) resolve();
    this.#pause = setTimeout(() => this.#scoreRest(this.#answered), PAUSE_MS);
  }

  async #step(state) {
    const prefix = state.prefix.length <= LONGEST_PREFIX ? wellFormed(state.prefix) : "";
    const step = await this.#session.step({ ...state, prefix }, { ...this.#sizes(), known: this.#tell.known() });
    this.#notice.clear();
    this.#tell.scores(state, step.from, step.tokens, step.until);
    if (state !== this.#wanted || step.until < state.start) return;
    this.#answered = state;
    this.#refused = false;
    this.#tell.suggestions(state, state.prefix.length <= LONGEST_PREFIX ? step.predictions : []);
  }

  /** Wait, begin anew, or give this state up: whatever the error asks for. What is typed meanwhile is wanted next. */
  async #recover(error, failures) {
    const expired = error instanceof Astray || (error instanceof Refusal && (error.status === 404 || error.status === 409));
    if (isTemporary(error) && !(error instanceof Astray)) {
      await this.#notice.wait(reason(error), delay(error, failures));
    } else if (expired && failures < 4) {
      // Where a session stands elsewhere than was thought, the next step first takes it back; if that fails, it is lost.
      if (error.status !== 409 || failures > 0) this.#session.abandon();
    } else {
      this.#session.abandon();
      this.#answered = this.#wanted;
      this.#refused = true;
      this.#tell.suggestions(this.#wanted, []);
      this.#notice.say(`The server refused this: ${error.message}. Your text is kept.`, "error");
      if (!(error instanceof Refusal)) console.error(error);
    }
  }

  /** Score what stands after the caret's place, and the word being typed as if it were whole. Suggestions do not change. */
  async #scoreRest(state) {
    if (state !== this.#wanted || state.text.length > this.#sizes().whole || state.virtual) return;
    const rest = wellFormed(state.text.slice(state.start));
    if (!rest.trim()) return;
    this.#aside = new AbortController();
    const fields = {
      context: wellFormed(state.text.slice(0, state.start)), text: rest, return_tokens: true, include_eos: false,
      ...model,
    };
    try {
      const answer = await ask("POST", "perplexity", fields, { signal: this.#aside.signal });
      const tokens = placed(answer.results[0].tokens ?? [], rest, state.start);
      this.#tell.scores(state, state.start, tokens, state.text.length);
    } catch (error) {
      if (state === this.#wanted && isTemporary(error)) {
        this.#pause = setTimeout(() => this.#scoreRest(state), delay(error, 2) * 1000);
      }
    }
  }
}
