// One stream of a connection: media and questions in, replies out. In: a link, the server's messages for this stream.
// Out: calls of `heard`. It keeps the stream's media clock, which starts when the server has opened it. It knows
// neither where media comes from nor how replies are shown.

import { Figures, SEEN } from "./figures.js";
import { packet } from "./wire.js";

const MOST_WAITING_BYTES = 512 * 1024; // In the browser; beyond it media is dropped here.
const LONGEST_REPLY_TOKENS = 2000;
const REFUSALS = {
  opening: "The talk has not begun yet.",
  full: "The model's memory is full: start anew.",
  closed: "This talk has ended: start anew.",
};

let streams = 0;

/**
 * `heard` has `opened(info)`, `began(reply)`, `token(reply, event)`, `ended(reply, reason)`,
 * `failed(text)` and `closed(reason)`. A reply is `{kind, question, told, noted}`: `kind` as it was asked with, `told`
 * the number of its tokens, `noted` whether a person is to be told that it was cut.
 */
export class Talk {
  name = `page-${++streams}`;
  state = "opening"; // then "open", "full" (its memory), "closed"
  format = "";
  reply = null; // the one that runs
  asked = []; // questions whose replies have not begun
  figures;
  #link;
  #modalities; // that the model takes
  #heard;
  #picture = null; // the newest one, for a model that takes no video
  #started = 0;
  #refs = 0;
  #waiting = null; // for pictures from `from_us` on: what to call then

  constructor(link, limits, modalities, heard) {
    this.#link = link;
    this.#modalities = modalities;
    this.#heard = heard;
    this.figures = new Figures(limits);
    link.send({ type: "open", stream: this.name, policy: "latest" });
  }

  /** Media time of a moment of `performance.now()`; now without one. */
  at_us(moment = performance.now()) {
    return this.state === "opening" ? 0 : Math.round((moment - this.#started) * 1000);
  }

  /** A JPEG file that was taken at `moment`. A model that takes no video gets the newest one with each question. */
  frame(file, moment) {
    const pts_us = this.at_us(moment);
    if (!this.#takes("video")) {
      if (!this.#takes("image") || pts_us < 0) return;
      this.#picture = packet({ type: "image", stream: this.name, pts_us }, file);
      this.#seen("image", pts_us);
    } else if (pts_us >= 0 && this.#hasRoom()) {
      this.#link.send(packet({ type: "frame", stream: this.name, pts_us }, file));
      this.figures.sent += 1;
    } else if (pts_us >= 0) {
      this.figures.dropped += 1;
    }
  }

  /** Samples, 16 bits each, one channel, the first of them from `moment`. */
  sound(samples, rate, moment) {
    const pts_us = this.at_us(moment);
    if (!this.#takes("audio") || pts_us < 0 || !this.#hasRoom()) return;
    this.#link.send(packet({ type: "pcm", stream: this.name, pts_us, rate, encoding: "s16le" }, samples.buffer));
  }

  #takes(modality) {
    return this.state === "open" && this.#modalities.includes(modality);
  }

  #hasRoom() {
    return this.#link.waiting <= MOST_WAITING_BYTES;
  }

  /** Why nothing can be asked now, or "". */
  get refusal() {
    return REFUSALS[this.state] ?? "";
  }

  /** What was asked for last and has not ended: a reply that is still to begin, the one that runs, or null. */
  get newest() {
    return this.asked.at(-1) ?? this.reply;
  }

  /** Ask; `kind` comes back with the reply. False where it cannot be asked now. */
  ask(question, kind) {
    if (this.refusal) return false;
    const ref = `q${++this.#refs}`;
    this.asked.push({ ref, kind, question, told: 0, noted: true, asked: performance.now() });
    const params = { max_tokens: LONGEST_REPLY_TOKENS, hold: kind === "narration" };
    if (this.#picture !== null) this.#link.send(this.#picture);
    return this.#link.send({ type: "ask", stream: this.name, question, params, ref });
  }

  /** Call `then` once pictures that are taken from now on are in the model's memory; in place of what waits already. */
  whenSeen(then) {
    this.#waiting = { from_us: this.at_us(), then };
  }

  /** Cut the reply that runs, or the one that is about to; `noted`: a person is to be told. */
  interrupt(noted = true) {
    if (this.newest === null) return;
    this.newest.noted = noted;
    this.#link.send({ type: "interrupt", stream: this.name });
  }

  close() {
    if (this.state === "closed") return;
    this.state = "closed";
    this.#link.send({ type: "close", stream: this.name });
  }

  /** A message of the server about this stream. */
  take(message) {
    switch (message.type) {
      case "opened":
        this.#started = performance.now();
        this.state = "open";
        this.format = message.format;
        this.#heard.opened(message);
        break;
      case "appended":
        this.figures.appended(message);
        this.#seen(message.modality, message.start_us);
        break;
      case "dropped":
        this.figures.lost(message);
        break;
      case "reply":
        this.reply = this.asked.shift() ?? { kind: "", question: "", told: 0, noted: true };
        this.#heard.began(this.reply);
        break;
      case "token":
        this.#token(message);
        break;
      case "done": {
        const reply = this.reply;
        this.reply = null;
        if (reply !== null) this.#heard.ended(reply, message.reason);
        break;
      }
      case "error":
        this.#error(message);
        break;
      case "closed":
        if (this.state !== "closed") this.#heard.closed(message.reason);
        this.state = "closed";
        break;
    }
  }

  #seen(modality, start_us) {
    if (this.#waiting === null || !SEEN.includes(modality) || start_us < this.#waiting.from_us) return;
    const { then } = this.#waiting;
    this.#waiting = null;
    then();
  }

  #token(event) {
    const reply = this.reply;
    if (reply === null) return;
    if (reply.told === 0 && reply.kind !== "narration") this.figures.latency = performance.now() - reply.asked;
    reply.told += 1;
    this.figures.token(this.at_us());
    this.#heard.token(reply, event);
  }

  #error(message) {
    this.asked = this.asked.filter(({ ref }) => ref !== message.ref);
    if (message.code === "context_overflow") {
      const first = this.state === "open";
      if (first) this.state = "full";
      if (first) this.#heard.failed(REFUSALS.full);
      return;
    }
    if (message.fatal) this.state = "closed";
    this.#heard.failed(message.fatal ? `${message.message} ${REFUSALS.closed}` : message.message);
  }
}
