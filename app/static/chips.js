/**
 * Suggestions as chips, for one state of the text and no other.
 *
 * Boundary: the group of buttons. At each change of the text those go that are not true of it any more; what stays are
 * words after the same text that begin as the word being typed does, which is what the server would say of it.
 */

import { make, percent } from "./page.js";

const MOST = 5;
const ANNOUNCE_MS = 800;

export class Chips {
  #buttons;
  #announcer;
  #take;
  #state = null;
  #shown = [];
  #announcing = null;

  /** `take` is called with the prediction that is chosen. */
  constructor(group, announcer, take) {
    this.#announcer = announcer;
    this.#take = take;
    this.#buttons = Array.from({ length: MOST }, (_, index) => {
      const button = make("button", { type: "button", hidden: true });
      button.addEventListener("click", () => this.take(index));
      return button;
    });
    group.append(...this.#buttons);
  }

  get count() {
    return this.#shown.length;
  }

  show(state, predictions) {
    this.#state = state;
    this.#render(predictions);
  }

  /** Keep what is true of this state. */
  narrow(state) {
    const before = this.#state;
    const goesOn =
      before && state && state.start === before.start && state.prefix.startsWith(before.prefix) &&
      state.text.slice(0, state.start) === before.text.slice(0, before.start);
    this.#state = goesOn ? state : null;
    this.#render(goesOn ? this.#shown.filter(({ word }) => begins(word, state.prefix)) : []);
  }

  hide() {
    this.narrow(null);
  }

  /** Choose by place; false where there is none. */
  take(index) {
    const chosen = this.#shown[index];
    if (chosen) this.#take(chosen);
    return Boolean(chosen);
  }

  #render(predictions) {
    this.#shown = predictions;
    this.#buttons.forEach((button, index) => {
      const prediction = predictions[index];
      button.hidden = !prediction;
      if (!prediction || (button.dataset.word === prediction.word && button.dataset.at === percent(prediction.probability)))
        return;
      button.dataset.word = prediction.word;
      button.dataset.at = percent(prediction.probability);
      button.replaceChildren(
        make("kbd", { textContent: index + 1, ariaHidden: "true" }),
        make("span", { className: "word", textContent: prediction.word, dir: "auto" }),
        make("span", { className: "share", textContent: percent(prediction.probability) }),
      );
    });
    clearTimeout(this.#announcing);
    this.#announcing = setTimeout(() => this.#announce(), ANNOUNCE_MS);
  }

  /** Told to who listens once typing pauses, not at each key. */
  #announce() {
    const words = this.#shown.map(({ word }, index) => `${index + 1} ${word}`);
    this.#announcer.textContent = words.length ? `Suggestions: ${words.join(", ")}` : "";
  }
}

/** Whether the server takes a word for a completion: lower case stands for any case, a straight apostrophe for a curly one. */
function begins(word, prefix) {
  const [own, typed] = [word, prefix].map((it) => it.replaceAll("’", "'"));
  return (typed === typed.toLowerCase() ? own.toLowerCase() : own).startsWith(typed);
}
