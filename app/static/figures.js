/**
 * Figures of what was read: of the word at the caret or under the pointer, of the whole text, and of every word.
 */

import { LEVELS, levelOf } from "./editor.js";
import { figure, make, percent, whole } from "./page.js";

/** Rows of the table of every word. */
const MOST_ROWS = 500;

export class Figures {
  #editor;
  #line;
  #summary;
  #table;
  #rows;
  #lit = null;

  constructor(editor, { line, summary, table, rows, legend }) {
    this.#editor = editor;
    this.#line = line;
    this.#summary = summary;
    this.#table = table;
    this.#rows = rows;
    legend.append(...[0, ...LEVELS].map((least) => make("li", { className: `s${levelOf(least)}`, textContent: least })));
    table.addEventListener("toggle", () => this.#fill());
    editor.addEventListener("pointed", ({ detail }) => this.#show(detail ?? this.#atCaret()));
  }

  /** Figures of what the marks are now. */
  refresh() {
    const marks = this.#editor.marks;
    this.#show(this.#atCaret());
    if (!marks.length) this.#summary.textContent = "Nothing read yet";
    else {
      const bits = marks.reduce((sum, mark) => sum + mark.surprisal, 0) / marks.length;
      const tokens = marks.length === 1 ? "1 token" : `${whole(marks.length)} tokens`;
      this.#summary.textContent = `${tokens}, perplexity ${figure(2 ** bits)}`;
    }
    this.#fill();
  }

  #atCaret() {
    return this.#editor.markAt(this.#editor.area.selectionStart) ?? null;
  }

  #show(mark) {
    if (this.#lit !== mark) {
      this.#lit?.span.classList.remove("lit");
      mark?.span.classList.add("lit");
      this.#lit = mark;
    }
    if (!mark) this.#line.textContent = "";
    else
      this.#line.replaceChildren(
        make("b", { textContent: shownToken(mark), dir: "auto" }),
        ` ${bits(mark)} · ${percent(Math.exp(mark.log_probability))} · rank ${whole(mark.rank)}${mark.oov ? " · unknown word" : ""}`,
      );
  }

  #fill() {
    if (!this.#table.open) return;
    this.#rows.replaceChildren(
      ...this.#editor.marks.slice(-MOST_ROWS).map((mark) =>
        make(
          "tr", {},
          make("th", { scope: "row", textContent: shownToken(mark) + (mark.oov ? " (unknown)" : ""), dir: "auto" }),
          make("td", { textContent: mark.surprisal.toFixed(2) }),
          make("td", { textContent: percent(Math.exp(mark.log_probability)) }),
          make("td", { textContent: whole(mark.rank) }),
        ),
      ),
    );
  }
}

function bits(mark) {
  return `${mark.surprisal.toFixed(2)} bits`;
}

function shownToken(mark) {
  const typed = mark.span.textContent;
  return typed === "\n" ? "line end" : typed;
}
