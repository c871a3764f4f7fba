// Small helpers for everything below.

const byId = (id) => document.getElementById(id);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const readJson = (id) => JSON.parse(byId(id).textContent);
const press = (button, on) => button.setAttribute("aria-pressed", String(on));
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

// A PSNR as the data has it: a number, "∞", or null without a score.
const decibels = (psnr) => (psnr === null || psnr === undefined ? "" : psnr === "∞" ? "∞ dB" : `${psnr.toFixed(2)} dB`);
// How much better, or null where one of the two is no finite number.
const gainOf = (psnr, reference) => (typeof psnr === "number" && typeof reference === "number" ? psnr - reference : null);
const signed = (gain) => `${gain < 0 ? "−" : "+"}${Math.abs(gain).toFixed(2)}`;

const smoothly = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
