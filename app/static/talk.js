/**
 * A conversation with one session over its WebSocket.
 *
 * Boundary: frames out, and for each the frames that carry its id back; what they mean is `session.js`.
 */

import { Lost, Refusal, address } from "./api.js";
import { subprotocols } from "./key.js";
import { record } from "./latency.js";

const CONNECT_MS = 10_000;
/** Without any frame for so long while one is awaited, the connection counts as broken. */
const SILENCE_MS = 30_000;

export class Talk {
  #socket;
  #waiting = new Map();
  #last = 0;
  #silence = null;

  constructor(socket) {
    this.#socket = socket;
    socket.addEventListener("message", (event) => this.#take(JSON.parse(event.data)));
    socket.addEventListener("close", () => this.#lose());
  }

  /** An open conversation; `Lost` where it cannot be had. */
  static async open(sessionId) {
    const place = address(`sessions/${encodeURIComponent(sessionId)}/stream`);
    place.protocol = place.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(place, subprotocols());
    await new Promise((resolve, reject) => {
      const late = setTimeout(() => socket.close(), CONNECT_MS);
      socket.addEventListener("open", () => (clearTimeout(late), resolve()));
      socket.addEventListener("close", () => (clearTimeout(late), reject(new Lost("the server cannot be reached"))));
    });
    return new Talk(socket);
  }

  get isOpen() {
    return this.#socket.readyState === WebSocket.OPEN;
  }

  /** Send a frame; its last answer. `onToken` gets those on the way; `signal` cancels it, and ends the wait at once. */
  ask(frame, { onToken, signal } = {}) {
    const id = (this.#last += 1);
    if (!this.isOpen) return Promise.reject(new Lost("the connection broke"));
    this.#socket.send(JSON.stringify({ id, ...frame }));
    this.#expect();
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, onToken, kind: frame.type, began: performance.now() });
      signal?.addEventListener("abort", () => {
        if (!this.#waiting.delete(id)) return;
        if (this.isOpen) this.#socket.send(JSON.stringify({ id: (this.#last += 1), type: "cancel", target: id }));
        resolve(null);
      });
    });
  }

  close() {
    this.#socket.close();
  }

  #take(frame) {
    this.#expect();
    const asked = this.#waiting.get(frame.id);
    if (!asked) return;
    if (frame.type === "token") {
      asked.onToken?.(frame);
      return;
    }
    this.#waiting.delete(frame.id);
    record(`WS ${asked.kind}`, performance.now() - asked.began);
    if (frame.type === "error") asked.reject(new Refusal(frame));
    else asked.resolve(frame);
  }

  #expect() {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#waiting.size && this.#lose(), SILENCE_MS);
  }

  #lose() {
    clearTimeout(this.#silence);
    this.#socket.close();
    for (const asked of this.#waiting.values()) asked.reject(new Lost("the connection broke"));
    this.#waiting.clear();
  }
}
