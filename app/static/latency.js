/**
 * How long the last requests took, and how long suggestions took after their keystrokes.
 */

import { at, make, milliseconds } from "./page.js";

const ROWS = 8;
const KEPT = 200;

const requests = [];
const suggestions = [];
let drawing = false;

/** A request of a kind took so many milliseconds. */
export function record(kind, time) {
  requests.unshift({ kind, time });
  requests.length = Math.min(requests.length, ROWS);
  draw();
}

/** Suggestions are shown now for a keystroke of that time. The measure is in the browser's own timeline, too. */
export function recordSuggestions(began) {
  suggestions.push(performance.measure("suggestions", { start: began }).duration);
  if (suggestions.length > KEPT) suggestions.shift();
  draw();
}

/** Once, when nothing more urgent is to be done. */
function draw() {
  if (drawing) return;
  drawing = true;
  setTimeout(() => {
    drawing = false;
    show();
  }, 250);
}

function show() {
  const sorted = suggestions.toSorted((one, other) => one - other);
  const quantile = (part) => milliseconds(sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))]);
  at("latency-told").textContent = sorted.length
    ? `From key to suggestions: half within ${quantile(0.5)}, 95% within ${quantile(0.95)}.`
    : "The last requests, newest first.";
  const most = Math.max(...requests.map(({ time }) => time));
  at("latency-rows").replaceChildren(
    ...requests.map(({ kind, time }) => {
      const bar = make("span", { className: "bar", ariaHidden: "true" });
      bar.style.inlineSize = `${(100 * time) / most}%`;
      return make("tr", {}, make("th", { scope: "row" }, make("span", {}, kind), bar), make("td", {}, milliseconds(time)));
    }),
  );
  at("latency").hidden = false;
}
