/**
 * Small things that every part of the page does with its elements and figures.
 */

/** The element of an id. */
export function at(id) {
  return document.getElementById(id);
}

/** A new element with properties and children; text is always text. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** A whole number with its thousands apart. */
export function whole(number) {
  return number.toLocaleString("en");
}

/** A figure with three digits that matter. */
export function figure(number) {
  if (number === null || number === undefined) return "–";
  if (number === 0) return "0";
  const size = Math.abs(number);
  if (size >= 1e15) return number.toExponential(2);
  return number.toLocaleString("en", size >= 1000 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 3 });
}

/** A probability in per cent. */
export function percent(probability) {
  if (probability < 0.00001) return "<0.001%";
  return `${(probability * 100).toLocaleString("en", { maximumSignificantDigits: probability < 0.01 ? 2 : 3 })}%`;
}

/** Milliseconds of a request. */
export function milliseconds(time) {
  return time < 10 ? `${time.toFixed(1)} ms` : `${whole(Math.round(time))} ms`;
}
