// One stream of a connection: media and questions in, replies out. In: a link, the server's messages for this stream
// and for the copies of it that answer beside it. Out: calls of `heard`. It keeps the stream's media clock, which starts
// when the server has opened it. It knows neither where media comes from nor how replies are shown.

import { Aside } from "./aside.js";
import { Figures, SEEN } from "./figures.js";
import { packet } from "./wire.js";

const MOST_WAITING_BYTES = 512 * 1024; // In the browser; beyond it media is dropped here.
const LONGEST_REPLY_TOKENS = 2000;
const QUIET_MS = 1500; // A held reply that says nothing for so long rests, also where no event says so.
const REFUSALS = {
  opening: "The talk has not begun yet.",
  full: "The model's memory is full.",
  closed: "This talk has ended.",
};

let streams = 0;

/**
 * `heard` has `opened()`, `began(reply)`, `token(reply, text, seen_us)`, `rested(reply)`,
 * `ended(reply, reason, since_us)`, `refused(reply, text)` (what was asked and will have no answer), `failed(text)`,
 * `full()` and `closed(reason)`.
 *
 * A reply is `{kind, question, beside, seen_us, told, resting, cut}`: `kind` as it was asked with, `beside` whether a
 * copy of the stream gives it, `seen_us` what the model had seen when it was asked, `told` the number of its tokens,
 * `resting` whether it has said what there is to say for now, `cut` whether a person has interrupted it.
 */
export class Talk {
  name = `page-${++streams}`;
  state = "opening"; // then "open", "full" (its memory), "closed"
  started = 0; // moment (of `performance.now()`) at which media time begins
  reply = null; // the one that runs
  asked = []; // questions whose replies have not begun
  #asides = new Map(); // questions that copies of the stream answer, by the copy's name
  figures;
  #link;
  #modalities; // that the model takes
  #heard;
  #picture = null; // the newest one, for a model that takes no video
  #refs = 0;
  #quiet = 0; // timer: a held reply rests
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
    return this.state === "opening" ? 0 : Math.round((moment - this.started) * 1000);
  }

  /** A JPEG file that was taken at `moment`. A model that takes no video gets the newest one with each question. */
  frame(file, moment) {
    const pts_us = this.at_us(moment);
    if (!this.#takes("video")) {
      if (!this.#takes("image") || pts_us < 0) return;
      this.#picture = { file, pts_us };
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

  /** What the stream itself was asked for last and has not ended: a reply to come, the one that runs, or null. */
  get newest() {
    return this.asked.at(-1) ?? this.reply;
  }

  /** What the model does: "listening" (to sound and pictures), "pending" (an answer is to come), "speaking"; or the
   * state of the talk, where it is not open. */
  get doing() {
    if (this.state !== "open") return this.state;
    const running = [...this.#asides.values()].map((aside) => aside.reply);
    if (this.reply !== null) running.push(this.reply);
    if ([...this.asked, ...running.filter(({ told }) => told === 0)].some(isQuestion)) return "pending";
    return running.some(({ told, resting }) => told > 0 && !resting) ? "speaking" : "listening";
  }

  /** Ask; `kind` comes back with the reply, which is given. Null where it cannot be asked now. While the stream narrates
   * a copy of it answers questions, and narration goes on. */
  ask(question, kind) {
    if (this.refusal) return null;
    const ref = `q${++this.#refs}`;
    const narrates = this.newest?.kind === "narration" && !this.newest.cut;
    const beside = narrates && kind === "question";
    const reply = { ref, kind, question, beside, id: 0, told: 0, resting: false, cut: false, asked: performance.now() };
    reply.seen_us = this.figures.seen_us;
    const stream = beside ? `${this.name}-${ref}` : this.name;
    const params = { max_tokens: LONGEST_REPLY_TOKENS };
    const how = { hold: kind === "narration", ignore_failed: true }; // a picture that failed has been told
    const ask = { type: "ask", stream, question, params, ...how, ref };
    const { file, pts_us } = this.#picture ?? {};
    const pictures = file ? [packet({ type: "image", stream, pts_us }, file)] : [];
    if (beside) this.#asides.set(stream, new Aside(this.#link, this.name, reply, pictures, ask, this.#beside()));
    else if (![...pictures, ask].every((message) => this.#link.send(message))) return null;
    else this.asked.push(reply);
    return reply;
  }

  #beside() {
    return {
      ...this.#heard,
      token: (reply, text, seen_us) => {
        if (reply.told === 1) this.figures.latency = performance.now() - reply.asked;
        this.#heard.token(reply, text, seen_us);
      },
      over: ({ name }) => this.#asides.delete(name),
    };
  }

  /** Call `then` once pictures that are taken from now on are in the model's memory; in place of what waits already. */
  whenSeen(then) {
    this.#waiting = { from_us: this.at_us(), then };
  }

  /** Cut the newest answer that is given beside the stream; where there is none, the stream's own reply. */
  interrupt() {
    const aside = [...this.#asides.values()].at(-1);
    if (aside) aside.interrupt();
    else this.cut();
  }

  /** Cut the reply of the stream itself that runs, or the one that is about to. */
  cut() {
    if (this.newest === null) return;
    this.newest.cut = true;
    this.#link.send({ type: "interrupt", stream: this.name });
  }

  close() {
    for (const aside of [...this.#asides.values()]) aside.close();
    if (this.state === "closed") return;
    this.state = "closed";
    this.#link.send({ type: "close", stream: this.name });
  }

  /** A message of the server; one that is about neither this stream nor a copy of it is passed over. */
  take(message) {
    const { stream, ref } = message;
    const aside = [...this.#asides.values()].find(({ name, reply }) => name === stream || reply.ref === ref);
    if (aside) return aside.take(message);
    if (stream !== this.name) return;
    switch (message.type) {
      case "opened":
        this.started = performance.now();
        this.state = "open";
        this.#heard.opened();
        break;
      case "evicted":
        this.figures.evicted(message);
        break;
      case "appended":
        this.figures.appended(message);
        this.#seen(message.modality, message.start_us);
        break;
      case "dropped":
        this.figures.lost(message);
        break;
      case "reply":
        this.reply = this.asked.shift() ?? { kind: "", question: "", beside: false, told: 0, resting: false, cut: false };
        this.reply.id = message.reply;
        this.#heard.began(this.reply);
        break;
      case "token":
        this.#token(message.text, message.seen);
        break;
      case "resting":
        if (this.reply?.id === message.reply) this.#rest();
        break;
      case "done":
        this.#done(message);
        break;
      case "error":
        this.#error(message);
        break;
      case "closed":
        if (this.state === "open") this.#heard.closed(message.reason);
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

  #token(text, seen) {
    const { reply } = this;
    if (reply === null) return;
    if (reply.told === 0 && reply.kind !== "narration") this.figures.latency = performance.now() - reply.asked;
    reply.told += 1;
    reply.resting = false;
    window.clearTimeout(this.#quiet);
    if (!isQuestion(reply)) this.#quiet = window.setTimeout(() => this.#rest(), QUIET_MS);
    this.figures.token(this.at_us());
    this.#heard.token(reply, text, seen?.stop_us ?? this.figures.seen_us);
  }

  #rest() {
    window.clearTimeout(this.#quiet);
    if (this.reply === null || this.reply.resting) return;
    this.reply.resting = true;
    this.#heard.rested(this.reply);
  }

  #done({ reason, text, since_us }) {
    const { reply } = this;
    window.clearTimeout(this.#quiet);
    this.reply = null;
    if (reply === null) return;
    if (text) this.#heard.token(reply, text, this.figures.seen_us); // it was held back until now
    this.#heard.ended(reply, reason, since_us);
  }

  #error(message) {
    const refused = this.asked.find(({ ref }) => ref === message.ref);
    this.asked = this.asked.filter((reply) => reply !== refused);
    const full = message.code === "context_overflow";
    const first = this.state === "opening" || this.state === "open";
    if (full) this.state = "full";
    else if (message.fatal) this.state = "closed";
    if (refused) this.#heard.refused(refused, full ? REFUSALS.full : message.message);
    else if (!full) this.#heard.failed(message.message);
    if (full && first) this.#heard.full();
    else if (message.fatal && first) this.#heard.closed("error");
  }
}

function isQuestion({ kind }) {
  return kind !== "narration";
}
