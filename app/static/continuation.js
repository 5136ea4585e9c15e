/**
 * "Continue": the model writes on, word by word, until it is done or stopped.
 *
 * Boundary: the form. Words are shown behind the text while they come and become part of it, as one step of its undo, when
 * they are all there; the session reads them then as it reads whatever is typed.
 */

import { persist } from "./api.js";
import { withoutLastBlanks } from "./editor.js";
import { whole } from "./page.js";

export class Continuation {
  #editor;
  #follower;
  #session;
  #form;
  #button;
  #told;
  #notice;
  #goOn;
  #stopping = null;

  /** `goOn` is called where nothing was written, and the session is to be where the caret is again. */
  constructor({ editor, follower, session, form, button, told, notice, goOn }) {
    this.#editor = editor;
    this.#follower = follower;
    this.#session = session;
    this.#form = form;
    this.#button = button;
    this.#told = told;
    this.#notice = notice;
    this.#goOn = goOn;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.isWriting) this.stop();
      else if (form.reportValidity()) this.#write();
    });
  }

  get isWriting() {
    return this.#stopping !== null;
  }

  stop() {
    this.#stopping?.abort();
  }

  async #write() {
    const { signal } = (this.#stopping = new AbortController());
    const words = [];
    this.#set(true);
    let told;
    try {
      const fields = this.#fields();
      await this.#arrive(signal);
      const done = signal.aborted ? null : await this.#stream(fields, words, signal);
      told = done ? `${count(words)}, seed ${done.seed}` : `Stopped after ${count(words)}`;
    } catch (error) {
      told = words.length ? `Broken off after ${count(words)}: ${error.message}` : `Not done: ${error.message}`;
    }
    this.#stopping = null;
    this.#set(false);
    this.#keep(words.join(""));
    this.#told.textContent = told;
  }

  /** All of the text read, its last word too. */
  async #arrive(signal) {
    const kept = withoutLastBlanks(this.#editor.text);
    const text = kept === "" || kept.endsWith("\n") ? kept : `${kept} `;
    this.#follower.follow({ text, start: text.length, caret: text.length, prefix: "", virtual: true });
    const stopped = new Promise((resolve) => signal.addEventListener("abort", () => resolve(true)));
    if (!(await Promise.race([this.#follower.arrived(), stopped]))) throw new Error("the server refused the text");
  }

  /** Tried again for as long as nothing was written. */
  async #stream(fields, words, signal) {
    const onToken = ({ text }) => {
      words.push(text);
      this.#editor.ghost = words.join("");
    };
    const write = () =>
      this.#session.write(fields, onToken, signal).catch((error) => {
        if (words.length) throw new Error(error.message);
        throw error;
      });
    return persist(write, this.#notice, signal);
  }

  /** What was written becomes text; blanks at the text's end give way to those that the model writes. */
  #keep(written) {
    this.#editor.ghost = null;
    const text = this.#editor.text;
    const end = withoutLastBlanks(text).length;
    const focused = document.activeElement;
    if (written) this.#editor.replace(end, text.length, end === 0 || text[end - 1] === "\n" ? written.trimStart() : written);
    else this.#goOn();
    if (focused === this.#button) focused.focus({ preventScroll: true });
  }

  #set(writing) {
    this.#button.textContent = writing ? "Stop" : "Continue";
    this.#editor.area.readOnly = writing;
    this.#editor.area.ariaBusy = String(writing);
    if (writing) this.#told.textContent = "Writing…";
  }

  #fields() {
    const inputs = [...this.#form.querySelectorAll("input")].filter((input) => input.value !== "");
    return Object.fromEntries(inputs.map((input) => [input.id, input.valueAsNumber]));
  }
}

function count(words) {
  return words.length === 1 ? "1 token" : `${whole(words.length)} tokens`;
}
