/**
 * A line that says what is wrong and what is being done about it, and waits with a count of seconds.
 */

import { make } from "./page.js";

export class Notice {
  #line;
  #button;
  #wake = () => {};

  /** `button`, where there is one, ends a wait at once. */
  constructor(line, button = null) {
    this.#line = line;
    this.#button = button;
    button?.addEventListener("click", () => this.#wake());
    addEventListener("online", () => this.#wake());
  }

  /** Say something; the same thing again is not said twice to who listens. */
  say(text, kind = "info") {
    this.#line.dataset.kind = kind;
    if (this.#line.textContent !== text) this.#line.textContent = text;
  }

  clear() {
    this.say("");
  }

  /** Say it and wait some seconds; resolves early where the button is pressed, or `signal` says so. */
  async wait(text, seconds, signal) {
    const left = make("span", { ariaHidden: "true" });
    this.#line.dataset.kind = "wait";
    this.#line.replaceChildren(`${text} What you typed is kept; trying again by itself`, left);
    if (this.#button) this.#button.hidden = false;
    const end = performance.now() + seconds * 1000;
    const show = () => (left.textContent = ` in ${Math.max(0, Math.ceil((end - performance.now()) / 1000))} s`);
    show();
    const ticking = setInterval(show, 1000);
    try {
      await new Promise((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, seconds * 1000);
        signal?.addEventListener("abort", resolve, { once: true });
      });
    } finally {
      clearInterval(ticking);
      if (this.#button) this.#button.hidden = true;
    }
  }
}
