// The words of a talk, as a list: questions, answers, narration, notes. In: questions as they are asked, tokens as they
// come. Out: lines, each with the media time that the model had seen; these times never run backwards. It knows neither
// the wire nor what is asked.

import { Sentences } from "./sentences.js";

const MOST_LINES = 200;
const NEAR_END = 60; // pixels: who has scrolled further up reads there, and is left there

export class Told {
  #list;
  #caption; // the newest words, large, over the picture
  #questions = new Map(); // lines of those that are asked and have no answer yet, by reply
  #sentences = new Sentences();
  #lines = new Map(); // of the reply that runs, by sentence
  #kind = "narration"; // of that reply
  #newest_us = 0; // what the model had seen at most
  #follows = true; // the newest line is kept in view

  constructor(list, caption) {
    this.#list = list;
    this.#caption = caption;
    list.addEventListener("scroll", () => {
      this.#follows = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_END;
    });
    new ResizeObserver(() => this.#follow()).observe(list);
  }

  clear() {
    this.#list.replaceChildren();
    this.#caption.replaceChildren();
    this.#questions.clear();
    this.#lines.clear();
    this.#newest_us = 0;
  }

  /** A question was asked: it stands at the end until its answer begins. */
  asked(reply) {
    const item = this.#line("question", null, reply.question);
    item.dataset.state = "pending";
    this.#questions.set(reply, item);
    this.#show(reply.question, "");
  }

  /** A reply begins: what is said from now on belongs to it. */
  began(reply, seen_us) {
    const item = this.#questions.get(reply);
    if (item) {
      item.dataset.state = "answered";
      item.querySelector("time").textContent = this.#time(seen_us);
      this.#questions.delete(reply);
    }
    this.#sentences = new Sentences();
    this.#lines = new Map();
    this.#kind = reply.kind === "narration" ? "narration" : "answer";
    if (reply.kind !== "narration") this.#show(reply.question, "");
  }

  /** A token of the reply that runs, and the media time that it had seen (null: none). */
  say(reply, text, seen_us) {
    const time_us = seen_us === null ? null : this.#latest(seen_us);
    const sentence = this.#sentences.say(text, time_us);
    if (sentence === null) return;
    const item = this.#lines.get(sentence.number) ?? this.#line(`said ${this.#kind}`, sentence.parts[0].seen_us, "");
    this.#lines.set(sentence.number, item);
    item.querySelector("div").replaceChildren(...sentence.parts.map(part));
    this.#follow(); // it may have grown by a line
    this.#show(reply.kind === "narration" ? "" : reply.question, sentence.text);
  }

  ended() {
    this.#sentences.end();
  }

  /** This question will have no answer. */
  refused(reply, text) {
    const item = this.#questions.get(reply);
    if (!item) return;
    this.#questions.delete(reply);
    item.dataset.state = "refused";
    const why = document.createElement("small");
    why.textContent = `Not answered. ${text}`;
    item.querySelector("div").append(why);
  }

  /** None of the questions that wait will have an answer. */
  abandoned(text) {
    for (const reply of [...this.#questions.keys()]) this.refused(reply, text);
  }

  note(text) {
    this.#line("note", null, text);
  }

  /** The latest time so far: seen is all that was seen before, too. */
  #latest(time_us) {
    this.#newest_us = Math.max(this.#newest_us, time_us);
    return this.#newest_us;
  }

  #time(time_us) {
    return time_us === null ? "" : seconds(this.#latest(time_us));
  }

  /** A new line; behind it stand only the questions that wait. */
  #line(kind, time_us, text) {
    const item = document.createElement("li");
    item.className = kind;
    const time = document.createElement("time");
    time.textContent = this.#time(time_us);
    const words = document.createElement("div");
    words.textContent = text;
    item.append(time, words);
    this.#follows ||= kind === "question";
    const [waiting = null] = this.#questions.values();
    this.#list.insertBefore(item, kind === "question" ? null : waiting);
    while (this.#list.children.length > MOST_LINES) this.#list.firstChild.remove();
    this.#follow();
    return item;
  }

  #follow() {
    if (this.#follows) this.#list.scrollTop = this.#list.scrollHeight;
  }

  /** The caption fades by itself, behind the newest words (stage.css). */
  #show(question, text) {
    const [small, large] = ["small", "strong"].map((name) => document.createElement(name));
    small.textContent = question;
    large.textContent = text;
    const shown = document.createElement("p");
    shown.append(small, large);
    this.#caption.replaceChildren(...(question || text ? [shown] : []));
  }
}

/** Words that had seen the same; talk.css shows the time where it changes within a sentence. */
function part({ text, seen_us }) {
  const words = document.createElement("span");
  words.textContent = text;
  if (seen_us !== null) {
    words.dataset.seen = seconds(seen_us);
    words.title = `had seen up to ${seconds(seen_us)}`;
  }
  return words;
}

function seconds(time_us) {
  return `${(time_us / 1e6).toFixed(1)} s`;
}
