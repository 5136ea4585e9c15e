/**
 * The text: a real textarea, over a mirror of it whose words are coloured by surprisal.
 *
 * Boundary: the two elements. The textarea is what is edited, undone, composed and read aloud; the mirror holds the same
 * text in the same place, of which only the colours are seen, and gives the sheet its height. A mark of a token stays
 * for as long as the text up to its word's end is what it was scored in.
 */

import { isBlank, sharedWords, wordEnd, wordStart } from "./text.js";

/** Surprisal in bits from which each colour begins; below the first there is none. */
export const LEVELS = [2, 4, 6, 9, 12, 15];

/** Which colour: 0 (none) to 6. */
export function levelOf(bits) {
  return LEVELS.filter((least) => bits >= least).length;
}

export class Editor extends EventTarget {
  #area;
  #mirror;
  #tail = document.createTextNode("");
  #marks = [];
  #text = "";
  #caret = -1;
  #coloured = true;
  #ghost = null;

  constructor(area, mirror) {
    super();
    this.#area = area;
    this.#mirror = mirror;
    mirror.append(this.#tail);
    area.addEventListener("input", (event) => this.#changed(event.isComposing));
    area.addEventListener("compositionend", () => this.#changed(false));
    document.addEventListener("selectionchange", () => this.#moved());
    area.addEventListener("mousemove", (event) => this.#pointed(event));
    area.addEventListener("mouseleave", () => this.#emit("pointed", null));
  }

  get text() {
    return this.#text;
  }

  get area() {
    return this.#area;
  }

  /** The tokens that are scored, from the text's beginning on, without gaps. */
  get marks() {
    return this.#marks;
  }

  /** Up to where the text is scored. */
  get known() {
    return this.#marks.at(-1)?.end ?? 0;
  }

  /** The text, where the word at the caret begins, and what is typed of it; null where several characters are selected. */
  get state() {
    const { selectionStart: caret, selectionEnd: end } = this.#area;
    if (caret !== end) return null;
    const start = wordStart(this.#text, caret);
    return { text: this.#text, start, caret, prefix: this.#text.slice(start, caret) };
  }

  /** Whether this is still the state. */
  isAt(state) {
    const now = this.state;
    return now !== null && now.caret === state.caret && now.text === state.text;
  }

  /** Show marks, or for a text that is too long a plain textarea. */
  set coloured(wanted) {
    if (wanted === this.#coloured) return;
    this.#coloured = wanted;
    this.#mirror.parentElement.classList.toggle("plain", !wanted);
    this.#cutMarks(0);
  }

  /** Show no scores: they were given by other probabilities. */
  forget() {
    this.#cutMarks(0);
    this.#fillTail();
  }

  /** Scores of the tokens between two places of a text that was, as far as it is still the text. */
  score(text, from, tokens, until) {
    if (!this.#coloured || from > this.known + leadingBlanks(text, this.known)) return;
    const same = text === this.#text ? until : Math.min(until, sharedWords(text, this.#text));
    const kept = tokens.filter((token) => token.end <= same);
    const ahead = this.#marks.filter((mark) => mark.start >= until);
    this.#cutMarks(from);
    for (const token of kept) this.#mark(token);
    // What was scored beyond is as true as before, where there is no gap.
    if (same === until) for (const mark of ahead) this.#mark(mark);
    this.#fillTail();
    this.#emit("scored");
  }

  /** Put words at the end, to be seen and not yet part of the text; null takes them away. */
  set ghost(words) {
    this.#ghost?.remove();
    this.#ghost = words === null ? null : Object.assign(document.createElement("ins"), { textContent: words });
    if (this.#ghost) this.#mirror.append(this.#ghost, "");
    this.#fillTail();
  }

  /** Replace a part of the text, as one step of its undo; the caret comes after it. */
  replace(from, to, words) {
    this.#area.focus({ preventScroll: true });
    this.#area.setSelectionRange(from, to);
    // The only way for a page to edit and leave the browser's undo whole.
    if (document.execCommand("insertText", false, words)) return;
    this.#area.setRangeText(words, from, to, "end");
    this.#changed(false);
  }

  /** Put a word in place of the one at the caret, with a blank after it, and before it where its `text` has one. */
  complete({ word, text }) {
    const { start, caret } = this.state;
    const end = wordEnd(this.#text, caret);
    const glued = /^\S/.test(text) && this.#text[start - 1] === " ";
    const blank = end < this.#text.length && isBlank(this.#text.charCodeAt(end));
    const words = `${word}${blank ? this.#text[end] : " "}`;
    // Only what differs is replaced, so that undoing it leaves nothing selected.
    const from = glued ? start - 1 : start;
    const typed = words.startsWith(this.#text.slice(from, caret)) ? caret - from : 0;
    this.replace(from + typed, blank ? end + 1 : end, words.slice(typed));
  }

  /** Take what the textarea holds, as a browser may have put it there by itself. */
  refresh() {
    if (this.#area.value !== this.#text) this.#changed(false);
  }

  /** The mark of the token that ends at, or goes over, a place. */
  markAt(place) {
    return this.#marks.findLast((mark) => mark.start < place || (mark.start === 0 && place === 0));
  }

  #changed(composing) {
    const text = this.#area.value;
    if (text !== this.#text) {
      this.#cutMarks(sharedWords(this.#text, text));
      this.#text = text;
      this.#fillTail();
    }
    this.#caret = this.#area.selectionStart;
    this.#emit("changed", { composing });
  }

  #moved() {
    if (document.activeElement !== this.#area || this.#area.value.length !== this.#text.length) return;
    const place = this.#area.selectionStart === this.#area.selectionEnd ? this.#area.selectionStart : -1;
    if (place === this.#caret) return;
    this.#caret = place;
    this.#emit("moved");
  }

  #pointed(event) {
    const under = document.elementsFromPoint(event.clientX, event.clientY);
    const span = under.find((element) => element.parentElement === this.#mirror && element.mark);
    this.#emit("pointed", span?.mark ?? null);
  }

  #mark(token) {
    const gap = document.createTextNode(this.#text.slice(this.known, token.start));
    const span = document.createElement("span");
    span.className = `s${levelOf(token.surprisal)}${token.oov ? " oov" : ""}`;
    span.textContent = this.#text.slice(token.start, token.end);
    const mark = { ...token, gap, span };
    span.mark = mark;
    this.#marks.push(mark);
    this.#tail.before(gap, span);
  }

  #cutMarks(end) {
    while (this.known > end) {
      const { gap, span } = this.#marks.pop();
      gap.remove();
      span.remove();
    }
  }

  /** What no mark covers. A last newline has a line only where something follows it. */
  #fillTail() {
    const tail = this.#coloured ? this.#text.slice(this.known) : "";
    const data = this.#ghost ? withoutLastBlanks(tail) : `${tail}\u200b`;
    if (this.#tail.data !== data) this.#tail.data = data;
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** Without the blanks at its end that words may take the place of; lines stay. */
export function withoutLastBlanks(text) {
  return text.replace(/[ \t]+$/, "");
}

/** Blanks after a place. */
function leadingBlanks(text, from) {
  let at = from;
  while (at < text.length && isBlank(text.charCodeAt(at))) at += 1;
  return at - from;
}
