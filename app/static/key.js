/**
 * The key of a server that needs one: asked for when the server says so, and kept for as long as this tab is open.
 *
 * Boundary: the key, and the dialog that asks for it. Which requests carry it, `api.js` and `talk.js` know.
 */

import { at } from "./page.js";

const PLACE = "pru-key";
/** Anything else could not even be sent. */
const KEY = /^pru_[A-Za-z0-9_-]{43}$/;
/** What a WebSocket speaks; beside it, one carries the key, since a page may not set its header fields. */
const SPOKEN = "pru";

/** Where the browser keeps nothing for pages, the key lives as long as this one. */
let kept = "";
try {
  kept = sessionStorage.getItem(PLACE) ?? "";
} catch {}

let asking = null;

/** Header fields of a request: with the key, where there is one. */
export function fields() {
  return kept ? { Authorization: `Bearer ${kept}` } : {};
}

/** Subprotocols of a WebSocket: the same. */
export function subprotocols() {
  return kept ? [SPOKEN, `${SPOKEN}.key.${kept}`] : [];
}

/**
 * Ask for a key, after the one that was `used` was refused; `told` says why. Resolves to whether there is another now:
 * somebody may also close the dialog.
 */
export function renewed(used, told) {
  if (used !== fields().Authorization) return Promise.resolve(true);
  asking ??= enter(told).finally(() => (asking = null));
  return asking;
}

async function enter(told) {
  const dialog = at("key");
  const input = at("key-input");
  at("key-told").textContent = kept ? "The server did not take this key. It may be mistyped, expired or withdrawn." : told;
  let entered = "";
  at("key-form").onsubmit = (event) => {
    event.preventDefault();
    const typed = input.value.trim();
    if (!KEY.test(typed)) return void (at("key-told").textContent = "This is no key: one begins with pru_ and has 47 characters.");
    entered = typed;
    dialog.close();
  };
  dialog.showModal();
  input.focus();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  input.value = "";
  if (!entered) return false;
  kept = entered;
  try {
    sessionStorage.setItem(PLACE, kept);
  } catch {}
  return true;
}
