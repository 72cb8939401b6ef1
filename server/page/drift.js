// Things of the pond that move by themselves, one after the other, as Brook has seen things move: straight from one
// field to a free one, and then still for a while. In: a pond. Out: its moves. It knows neither streams nor buttons.

const FIRST_MS = 2500;
const EVERY_MS = 5000;
const MOVE_MS = 900;
const STEP_MS = 40;

export class Drift {
  #pond;
  #next = 0; // timers
  #move = 0;
  #last = null; // the thing that moved last

  constructor(pond) {
    this.#pond = pond;
  }

  start() {
    this.stop();
    this.#next = window.setTimeout(() => this.#begin(), FIRST_MS);
  }

  /** At once, wherever a thing is. */
  stop() {
    window.clearTimeout(this.#next);
    window.clearInterval(this.#move);
  }

  #begin() {
    this.#next = window.setTimeout(() => this.#begin(), EVERY_MS);
    const all = this.#pond.ways();
    const others = all.filter(({ thing }) => thing !== this.#last);
    const ways = others.length > 0 ? others : all;
    if (ways.length === 0) return;
    const { thing, x, y } = ways[Math.floor(Math.random() * ways.length)];
    const from = { x: thing.x, y: thing.y };
    const start = performance.now();
    this.#last = thing;
    this.#move = window.setInterval(() => {
      const part = Math.min(1, (performance.now() - start) / MOVE_MS);
      const eased = part * part * (3 - 2 * part);
      this.#pond.put(thing, from.x + (x - from.x) * eased, from.y + (y - from.y) * eased);
      if (part === 1) window.clearInterval(this.#move);
    }, STEP_MS);
  }
}
