// What goes on, in a word, as motion and in numbers. In: states, sound, figures. Out: `data-state` of the page, which
// stage.css turns into motion, a word for it, the figures. It knows neither the link nor the talk.

const NEARLY_FULL = 0.8;

const WORDS = {
  opening: "Opening",
  pending: "Thinking",
  speaking: "Speaking",
  full: "Memory full",
  closed: "Ended",
};
// These follow each other many times a minute: whoever listens to the page hears the words themselves.
const OFTEN = ["opening", "listening", "pending", "speaking"];

export class Status {
  #element;
  #words;
  #level = 0;

  constructor(element, words) {
    this.#element = element;
    this.#words = words;
  }

  /** `listening` is said with a word of its own, for not every model looks and listens. */
  show(name, words = WORDS[name]) {
    if (this.#words.textContent === words && this.#element.dataset.state === name) return;
    this.#element.ariaLive = OFTEN.includes(name) ? "off" : "polite";
    this.#element.dataset.state = document.body.dataset.state = name;
    this.#words.textContent = words;
  }

  /** How loud it is where the model listens: samples of 16 bits. */
  sound(samples) {
    let sum = 0;
    for (const sample of samples) sum += sample * sample;
    const loud = Math.min(1, Math.sqrt(sum / samples.length) / 6000);
    this.#level = Math.max(loud, this.#level * 0.6);
    this.#element.style.setProperty("--level", this.#level.toFixed(2));
  }
}

/** The numbers behind the fold, and a line when little memory is left. */
export function showFigures({ latency, freshness, dropped, memory }) {
  const at = (id) => document.getElementById(id);
  at("latency").textContent = latency === null ? "-" : `${latency.toFixed(0)} ms`;
  at("freshness").textContent = freshness === null ? "-" : `${freshness.toFixed(0)} ms`;
  at("dropped").textContent = dropped;
  at("memory").textContent = `${(100 * memory).toFixed(0)} %`;
  const line = at("memory-line");
  const text = memory < NEARLY_FULL ? "" : "Its memory is 80 % full. When it is full, a new talk begins by itself.";
  if (line.textContent !== text) line.textContent = text;
  line.hidden = text === "";
}
