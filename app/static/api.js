/**
 * Requests to the server that this page came from, and what may come of them other than an answer.
 *
 * Boundary: JSON over HTTP, errors, and how long to wait before the next try. WebSockets are `talk.js`. Where the server
 * wants a key, the request waits until somebody has entered one.
 */

import * as key from "./key.js";
import { record } from "./latency.js";

/** The server's own refusal: a problem document. */
export class Refusal extends Error {
  constructor(problem, retryAfter = null) {
    super(problem.detail ?? problem.title ?? `the server answered ${problem.status}`);
    this.status = problem.status;
    this.retryAfter = retryAfter;
  }
}

/** No answer: the server is away, or the connection broke. */
export class Lost extends Error {}

const TEMPORARY = new Set([429, 502, 503, 504]);
const MOST_SECONDS = 4;

/** The address of a route, wherever the page is served. */
export function address(route) {
  return new URL(route, document.baseURI);
}

const name = new URL(location.href).searchParams.get("model");

/** Which model is asked, as a request's fields: the one that the page's address names, or the server's default. */
export const model = name === null ? {} : { model: name };

/** Ask a route; `fields` are sent as JSON. */
export async function ask(method, route, fields, { signal, kind = `${method} /${route}` } = {}) {
  const request = { method, signal, headers: key.fields() };
  if (fields !== undefined) {
    request.headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(fields);
  }
  const began = performance.now();
  let response, text;
  try {
    response = await fetch(address(route), request);
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Lost("the server cannot be reached");
  }
  record(kind, performance.now() - began);
  const answer = parsed(text);
  if (response.ok && answer !== undefined) return answer;
  if (response.status === 401) {
    const told = "This server answers only those who have a key.";
    if ((await key.renewed(request.headers.Authorization, told)) && !signal?.aborted) return ask(method, route, fields, { signal, kind });
  }
  throw new Refusal({ status: response.status, ...answer }, Number(response.headers.get("Retry-After")) || null);
}

/** JSON, or nothing: what stands between may answer with a page of its own. */
function parsed(text) {
  try {
    return JSON.parse(text || "{}");
  } catch {
    return undefined;
  }
}

/** Whether the same request may succeed later. */
export function isTemporary(error) {
  return error instanceof Lost || (error instanceof Refusal && TEMPORARY.has(error.status));
}

/** Seconds until the next try, after so many that failed. */
export function delay(error, failures) {
  return Math.min(MOST_SECONDS, Math.max(error.retryAfter ?? 0, 0.5 * 2 ** failures));
}

/** What to tell of an error that is tried again. */
export function reason(error) {
  if (error instanceof Lost) return "The server cannot be reached.";
  if (error.status === 429) return "The server has no room just now.";
  if (error.status === 503) return `The server is not ready (${error.message}).`;
  return `The server did not manage (${error.message}).`;
}

/** Do `work` until it succeeds or fails for good; `notice` tells of the waits between. */
export async function persist(work, notice, signal) {
  for (let failures = 0; ; failures += 1) {
    try {
      const answer = await work();
      if (failures) notice.clear();
      return answer;
    } catch (error) {
      if (signal?.aborted || !isTemporary(error)) {
        notice.clear();
        throw error;
      }
      await notice.wait(reason(error), delay(error, failures), signal);
    }
  }
}
