/**
 * The model card: what is served, what it is for, how good it is, and what a request may ask.
 */

import { ask, model as chosen, persist } from "./api.js";
import { Notice } from "./notice.js";
import { figure, make, whole } from "./page.js";

const CARD = { kind: "GET /model" };

export class Card {
  #card = null;

  /** `keep` says what of the page another model is to find again. */
  constructor({ told, list, choice, keep, onLimits }) {
    choice.addEventListener("change", () => {
      history.replaceState(keep(), "", `?${new URLSearchParams({ model: choice.value })}`);
      location.reload();
    });
    this.#load(new Notice(told), list, choice, onLimits);
  }

  /** Limits on a request, once they are known. */
  get limits() {
    return this.#card?.limits ?? null;
  }

  async #load(notice, list, choice, onLimits) {
    try {
      this.#card = await persist(() => ask("GET", `model?${new URLSearchParams(chosen)}`, undefined, CARD), notice);
    } catch (error) {
      notice.say(`The model card cannot be had: ${error.message}`, "error");
      return;
    }
    notice.clear();
    const { model, models } = this.#card;
    choice.replaceChildren(...models.map((name) => new Option(name, name, false, name === model.name)));
    choice.closest("p").hidden = models.length === 1;
    list.replaceChildren(...rows(this.#card).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
    onLimits();
  }
}

function rows(card) {
  const { model, architecture: a, vocabulary_size, metrics, training, intended_use, limitations, licence, attribution, limits } = card;
  const shape = [
    a.layers && `${a.layers} layers`, a.hidden_size && `${whole(a.hidden_size)} wide`, a.groups && `${a.groups} groups`,
    a.levels && `${a.levels} levels`,
  ];
  return [
    ["Name", model.name],
    ["Intended use", intended_use],
    ["Limitations", limitations],
    ["Shape", shape.filter(Boolean).join(", ")],
    ["Vocabulary", `${whole(vocabulary_size)} words`],
    ...metrics.map((metric) => ["Perplexity", `${figure(metric.perplexity)} on ${metric.data}, ${metric.precision}`]),
    ["Trained on", training?.data?.name],
    ["Run by", `${model.engine}, ${model.precision}`],
    ["Bundle", make("code", { textContent: model.sha256.slice(0, 12), title: model.sha256 })],
    ["Licence", licence],
    ["Attribution", attribution],
    ["One request", `${whole(limits.tokens)} tokens, ${whole(limits.texts)} texts, ${whole(limits.body_bytes)} bytes at most`],
  ].filter(([, value]) => value);
}
