/**
 * What of a text is a word: the server's blanks, places between words, code points.
 *
 * Boundary: strings and offsets (UTF-16 units, unless said otherwise); no page, no server.
 */

/** Whether a UTF-16 unit is one of Python's blanks, which is what the server cuts words at. */
export function isBlank(unit) {
  if (unit <= 0x20) return unit === 0x20 || (unit >= 0x09 && unit <= 0x0d) || (unit >= 0x1c && unit <= 0x1f);
  if (unit < 0x1680) return unit === 0x85 || unit === 0xa0;
  return (
    unit === 0x1680 || (unit >= 0x2000 && unit <= 0x200a) || unit === 0x2028 || unit === 0x2029 || unit === 0x202f ||
    unit === 0x205f || unit === 0x3000
  );
}

/** Where the word before `at` begins: `at` itself after a blank. */
export function wordStart(text, at) {
  while (at > 0 && !isBlank(text.charCodeAt(at - 1))) at -= 1;
  return at;
}

/** Where the word after `at` ends: `at` itself before a blank. */
export function wordEnd(text, at) {
  while (at < text.length && !isBlank(text.charCodeAt(at))) at += 1;
  return at;
}

/** Where the word begins that is `count` words before `at`, not before `least`. */
export function wordsBefore(text, at, count, least) {
  for (; count > 0 && at > least; count -= 1) {
    while (at > least && isBlank(text.charCodeAt(at - 1))) at -= 1;
    at = Math.max(least, wordStart(text, at));
  }
  return at;
}

/** The first place between words at or after `at + size`, not after `most`. */
export function pieceEnd(text, at, size, most) {
  if (most - at <= size) return most;
  let end = wordEnd(text, at + size);
  while (end < most && isBlank(text.charCodeAt(end))) end += 1;
  return Math.min(end, most);
}

/** Units that two texts share at their beginnings. */
export function shared(one, other) {
  const most = Math.min(one.length, other.length);
  if (one.startsWith(other.slice(0, most))) return most;
  let at = 0;
  while (one.charCodeAt(at) === other.charCodeAt(at)) at += 1;
  return at;
}

/** Up to where the words of `before` are still those of `after`: all of them whole, in both. */
export function sharedWords(before, after) {
  const at = shared(before, after);
  const cutsWord = (text) => at < text.length && !isBlank(text.charCodeAt(at));
  return cutsWord(before) || cutsWord(after) ? wordStart(after, at) : at;
}

/** The server's offsets of tokens, which are code points of `piece`, as units of the text in which it begins at `from`. */
export function placed(tokens, piece, from) {
  const units = [];
  let unit = 0;
  for (const character of piece) {
    units.push(unit);
    unit += character.length;
  }
  units.push(unit);
  return tokens.map((token) => ({ ...token, start: from + units[token.start], end: from + units[token.end] }));
}

/** A text that UTF-8 can hold: half a character, which a paste may bring, becomes a mark that there was one. */
export function wellFormed(text) {
  return text.toWellFormed();
}
