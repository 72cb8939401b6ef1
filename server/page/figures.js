// What can be read off one stream in numbers. In: what is sent, and the server's events. Out: the newest value of each
// figure. Knows neither sockets nor the page. Times are milliseconds unless the name says otherwise.

export const SEEN = ["video", "image", "unit"]; // modalities with pictures

export class Figures {
  sent = 0; // frames
  seen_us = null; // media time of the newest frame in the model's memory
  dropped = 0; // frames that will never be seen
  latency = null; // from a question to the first token of its answer
  freshness = null; // age of the newest frame behind the last token
  #limits;
  #rows = 0;
  #gone = 0; // rows that have left the stream's window
  #position = 0;

  constructor(limits) {
    this.#limits = limits;
  }

  /** How much of what the stream can hold is used, 0 to 1. */
  get memory() {
    const { rows = Infinity, positions = Infinity } = this.#limits;
    const far = this.#gone ? 0 : this.#position / positions; // a stream that slides runs out of no positions
    return Math.min(1, Math.max((this.#rows - this.#gone) / rows, far));
  }

  appended(event) {
    this.#rows = Math.max(this.#rows, event.row + event.rows);
    this.#position = Math.max(this.#position, event.position);
    if (SEEN.includes(event.modality)) this.seen_us = event.stop_us;
  }

  evicted(event) {
    this.#gone += event.rows - event.recalled;
  }

  lost(event) {
    if (SEEN.includes(event.modality)) this.dropped += event.count;
  }

  /** A token came at media time `now_us`. */
  token(now_us) {
    this.#rows += 1;
    if (this.seen_us !== null) this.freshness = (now_us - this.seen_us) / 1000;
  }
}
