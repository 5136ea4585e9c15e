/**
 * The page: makes its parts and tells each what the others need to know.
 */

import { Card } from "./card.js";
import { Chips } from "./chips.js";
import { Comparison } from "./compare.js";
import { Continuation } from "./continuation.js";
import { Editor } from "./editor.js";
import { Figures } from "./figures.js";
import { Follower } from "./follower.js";
import { recordSuggestions } from "./latency.js";
import { Notice } from "./notice.js";
import { at, whole } from "./page.js";
import { Session } from "./session.js";

/** Characters up to which a text is coloured, and read from its beginning. */
const WHOLE = 20_000;
/** Bytes of a character in JSON, at most. */
const BYTES = 6;

const area = at("text");
const editor = new Editor(area, at("mirror"));
const session = new Session(() => at("learn").checked);
const notice = new Notice(at("notice"), at("again"));
const card = new Card({
  told: at("model-told"), list: at("model"), choice: at("model-choice"), keep: () => ({ text: editor.text }),
  onLimits: measure,
});
const chips = new Chips(at("chips"), at("announcer"), (prediction) => editor.complete(prediction));
const figures = new Figures(editor, {
  line: at("figures"), summary: at("summary"), table: at("every"), rows: at("every-rows"),
  legend: at("legend").querySelector("ol"),
});
const follower = new Follower(session, sizes, notice, {
  known: () => editor.known,
  scores: (state, from, tokens, until) => editor.score(state.text, from, tokens, until),
  suggestions: show,
});
const continuation = new Continuation({
  editor, follower, session, notice, form: at("continue"), button: at("continue-button"), told: at("continue-told"),
  goOn: follow,
});
new Comparison({
  form: at("compare"), area: at("sentences"), told: at("compare-told"), table: at("bars"), rows: at("bars-rows"),
  limits: () => card.limits,
});

const EXAMPLES = [
  "The film was released in the United States by a gigantic zeppelin, and it did not do well at the box office.",
  "The castle was built in the 12th century, and its towers were later used as a bakery for dragons.",
  "She studied at the University of Oxford, where she became the first woman to win a bicycle made of cheese.",
];

/** Whether Tab and digits take words: once something was typed, until Esc or the focus leaves. */
let armed = false;
let typedAt = null;

/** No token is shorter than a character, so that a text of so many characters is within the server's limits. */
function sizes() {
  const { tokens, body_bytes } = card.limits ?? { tokens: WHOLE, body_bytes: WHOLE * BYTES * 2 };
  const most = Math.min(WHOLE, tokens, Math.floor(body_bytes / BYTES / 2));
  return { whole: most, window: Math.ceil(most / 2) };
}

function show(state, predictions) {
  if (state.virtual || !editor.isAt(state)) return;
  chips.show(state, predictions);
  if (typedAt !== null) recordSuggestions(typedAt);
  typedAt = null;
}

function follow() {
  const state = editor.state;
  chips.narrow(state);
  figures.refresh();
  if (state && !continuation.isWriting) follower.follow(state);
}

/** Say of a text that is too long what happens to it. */
function measure() {
  const { whole: most, window } = sizes();
  const long = editor.text.length > most;
  editor.coloured = !long;
  at("long").hidden = !long;
  if (long)
    at("long").textContent =
      `${whole(editor.text.length)} characters are too many to colour (up to ${whole(most)}). All of them are kept, and ` +
      `suggestions come from the ${whole(window)} before the caret.`;
}

editor.addEventListener("changed", ({ detail }) => {
  measure();
  if (detail.composing) chips.hide();
  else follow();
});
editor.addEventListener("moved", follow);
editor.addEventListener("scored", () => figures.refresh());

area.addEventListener("beforeinput", (event) => (typedAt = event.timeStamp));
area.addEventListener("input", () => (armed = true));
area.addEventListener("blur", () => (armed = false));
area.addEventListener("keydown", (event) => {
  if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    chips.hide();
    armed = false;
  } else if (armed && takes(event)) event.preventDefault();
});

at("learn").addEventListener("change", () => {
  editor.forget();
  follow();
});
at("example").addEventListener("click", () => {
  const next = EXAMPLES[(EXAMPLES.indexOf(editor.text) + 1) % EXAMPLES.length];
  editor.replace(0, editor.text.length, next);
});
document.addEventListener("keydown", ({ key }) => key === "Escape" && continuation.stop());

/** Whether a key takes a chip, which it then does. */
function takes({ key, shiftKey }) {
  if (key === "Tab") return !shiftKey && chips.take(0);
  return at("digits").checked && /^[1-9]$/.test(key) && chips.take(Number(key) - 1);
}

addEventListener("pagehide", () => session.end());
// A browser may put back what was typed before, after the page was loaded.
addEventListener("pageshow", () => editor.refresh());
editor.refresh();
if (!editor.text && history.state?.text) editor.replace(0, 0, history.state.text);
if (!editor.text) follow();
