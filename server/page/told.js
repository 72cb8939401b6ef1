// The words of a talk, as a list: questions, answers, narration, notes. In: questions as they are asked, tokens as they
// come, of several replies at a time. Out: lines, each with the media time that the model had seen. The times of the
// stream's own replies never run backwards, nor do those of an answer that was given beside. It knows neither the wire
// nor what is asked.

import { Sentences } from "./sentences.js";

const MOST_LINES = 200;
const READ_MS = 2500; // so long an answer stays over the picture, before narration may take its place
const NEAR_END = 60; // pixels: who has scrolled further up reads there, and is left there

export class Told {
  #list;
  #caption; // the newest words, large, over the picture
  #questions = new Map(); // lines of those that are asked and have no answer yet, by reply
  #runs = new Map(); // replies that run: their sentences, and the lines of these
  #seen = { us: 0 }; // what the stream itself had seen at most
  #kept = 0; // moment until which an answer stays over the picture
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
    this.#runs.clear();
    this.#seen = { us: 0 };
    this.#kept = 0;
  }

  /** A question was asked: it stands at the end until its answer begins. */
  asked(reply) {
    const item = this.#line("question", "", reply.question);
    item.dataset.state = "pending";
    this.#questions.set(reply, item);
    this.#show(reply.question, "");
  }

  /** A reply begins. An answer that a copy of the stream gives stands behind its question, whatever else is said. */
  began(reply, seen_us) {
    const item = this.#questions.get(reply);
    if (reply.kind === "question" && !item) return; // it was given up
    const kind = reply.kind === "narration" ? "narration" : "answer";
    const seen = reply.beside ? { us: 0 } : this.#seen; // narration may go on to later times
    const last = reply.beside ? item : null; // its newest line, where what it says next does not stand at the end
    this.#runs.set(reply, { kind, sentences: new Sentences(), lines: new Map(), seen, last });
    if (!item) return;
    item.dataset.state = "answered";
    item.querySelector("time").textContent = time(seen, seen_us);
    this.#questions.delete(reply);
    this.#show(reply.question, "");
  }

  /** A token of a reply that runs, and the media time that it had seen (null: none). */
  say(reply, text, seen_us) {
    const run = this.#runs.get(reply);
    const sentence = run?.sentences.say(text, seen_us === null ? null : latest(run.seen, seen_us));
    if (!sentence) return;
    const when = time(run.seen, sentence.parts[0].seen_us);
    const item = run.lines.get(sentence.number) ?? this.#lineOf(run, `said ${run.kind}`, when);
    run.lines.set(sentence.number, item);
    item.querySelector("div").replaceChildren(...sentence.parts.map(part));
    this.#follow(); // it may have grown by a line
    if (run.kind === "answer") this.#show(reply.question, sentence.text);
    else if (!this.#answers()) this.#show("", sentence.text);
  }

  /** A reply has said what there is to say for now. */
  rested(reply) {
    this.#runs.get(reply)?.sentences.end();
  }

  ended(reply) {
    if (this.#runs.get(reply)?.kind === "answer") this.#kept = performance.now() + READ_MS;
    this.#runs.delete(reply);
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

  /** The talk is over: none of the questions that wait will have an answer, and no reply goes on. */
  abandoned(text) {
    for (const reply of [...this.#questions.keys()]) this.refused(reply, text);
    this.#runs.clear();
  }

  /** A remark; one about a reply stands behind what that reply has said. */
  note(text, reply = null) {
    const item = this.#lineOf(this.#runs.get(reply), "note", "");
    item.querySelector("div").textContent = text;
  }

  /** Whether a question waits, or its answer is being given or read. */
  #answers() {
    const answering = [...this.#runs.values()].some(({ kind }) => kind === "answer");
    return answering || this.#questions.size > 0 || performance.now() < this.#kept;
  }

  /** A line behind the newest of a reply, or else behind all but the questions that wait. */
  #lineOf(run, kind, time) {
    const item = this.#line(kind, time, "");
    if (run?.last?.isConnected) run.last.after(item);
    if (run?.last) run.last = item;
    return item;
  }

  /** A new line; behind it stand only the questions that wait. */
  #line(kind, time, text) {
    const item = document.createElement("li");
    item.className = kind;
    const [when, words] = ["time", "div"].map((name) => document.createElement(name));
    when.textContent = time;
    words.textContent = text;
    item.append(when, words);
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

/** The latest time so far: seen is all that was seen before, too. */
function latest(seen, time_us) {
  seen.us = Math.max(seen.us, time_us);
  return seen.us;
}

function time(seen, time_us) {
  return time_us === null ? "" : seconds(latest(seen, time_us));
}

/** A time as it is shown. */
export function seconds(time_us) {
  return `${(time_us / 1e6).toFixed(1)} s`;
}
