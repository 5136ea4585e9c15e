/**
 * Sentences beside each other: the perplexity of each as a bar. Unknown words cost something in it: a misspelt word would
 * often win by the model's own, in which all of them share one probability.
 */

import { Refusal, ask, model, persist } from "./api.js";
import { Notice } from "./notice.js";
import { figure, make, whole } from "./page.js";
import { wellFormed } from "./text.js";

/** Nats for each unknown token, as the documentation's page on ranking recommends. */
const PENALTY = { "oov_penalty": 6 };

export class Comparison {
  #area;
  #told;
  #table;
  #rows;
  #limits;
  #asking = null;

  /** `limits()` are those of the model card, or null while it is not there. */
  constructor({ form, area, told, table, rows, limits }) {
    this.#area = area;
    this.#told = told;
    this.#table = table;
    this.#rows = rows;
    this.#limits = limits;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#compare();
    });
  }

  async #compare() {
    this.#asking?.abort();
    const { signal } = (this.#asking = new AbortController());
    const texts = this.#area.value.split("\n").map((line) => wellFormed(line.trim())).filter(Boolean);
    const notice = new Notice(this.#told);
    const wrong = this.#tooMuch(texts);
    if (wrong) return notice.say(wrong, "error");
    notice.say("Comparing…");
    try {
      const answer = await persist(() => ask("POST", "perplexity", { texts, ...PENALTY, ...model }, { signal }), notice, signal);
      notice.clear();
      this.#show(texts, answer.results);
    } catch (error) {
      if (!signal.aborted) notice.say(refusal(error), "error");
    }
  }

  /** What of the sentences is too much for one request, before any is sent. */
  #tooMuch(texts) {
    const limits = this.#limits();
    if (!texts.length) return "Write a sentence first.";
    if (!limits) return null;
    if (texts.length > limits.texts)
      return `These are ${whole(texts.length)} lines, and the server compares ${whole(limits.texts)} at once: take some out.`;
    const bytes = new Blob([JSON.stringify({ texts, ...PENALTY, ...model })]).size;
    if (bytes > limits.body_bytes)
      return `This is ${whole(bytes)} bytes, and the server takes ${whole(limits.body_bytes)} at once: take some out.`;
    return null;
  }

  #show(texts, results) {
    const perplexities = results.map(({ score, token_count }) => (token_count ? Math.exp(-score / token_count) : null));
    const most = Math.max(...perplexities.map((perplexity) => perplexity ?? 0));
    const least = Math.min(...perplexities.map((perplexity) => perplexity ?? Infinity));
    this.#rows.replaceChildren(
      ...results.map((result, index) => {
        const bar = make("span", { className: "bar", ariaHidden: "true" });
        bar.style.inlineSize = `${(100 * (perplexities[index] ?? 0)) / most}%`;
        const best = results.length > 1 && perplexities[index] === least;
        const unknown = result.oov_count ? `, ${whole(result.oov_count)} unknown` : "";
        const row = make(
          "tr", { className: best ? "best" : "" },
          make("th", { scope: "row" }, make("span", { textContent: texts[index], dir: "auto" }), bar),
          make("td", {},
            make("b", { textContent: figure(perplexities[index]) }),
            make("small", { textContent: `${best ? "likeliest, " : ""}${whole(result.token_count)} tokens${unknown}` })),
        );
        row.dataset.perplexity = perplexities[index];
        return row;
      }),
    );
    this.#table.hidden = false;
  }
}

function refusal(error) {
  return error instanceof Refusal ? `The server refused this: ${error.message}. Your text is kept.` : error.message;
}
