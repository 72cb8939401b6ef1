// The pond: things with a shape, a colour, a size and a place, and which of them is chosen. In: what a person does to
// them. Out: "change" events. Lengths are in widths of the pond. It knows neither how things look nor the hand.

export const SHAPES = ["circle", "square", "triangle", "star", "cross", "ring"];
export const COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "white"];
export const RADII = { small: 0.095, large: 0.16 };
export const MOST_THINGS = 4; // Brook has never seen more.

const ROWS = ["top", "", "bottom"];
const COLUMNS = ["left", "", "right"];
const FIELDS = [4, 3, 5, 1, 7, 0, 2, 6, 8]; // In which order they are filled: the middle first.

export class Pond extends EventTarget {
  things = []; // The last lies on top.
  chosen = null;

  get full() {
    return this.things.length >= MOST_THINGS;
  }

  /** A new thing at `x`, `y`, or without them at a free place. Null where the pond is full. */
  add(shape, colour, size, x, y) {
    if (this.full) return null;
    const place = x === undefined ? this.#free(RADII[size]) : { x, y };
    const thing = { shape, colour, size, ...place };
    this.things.push(thing);
    this.#changed();
    return thing;
  }

  choose(thing) {
    this.chosen = thing;
    this.#changed();
  }

  /** Put a thing there; it may leave the pond, `inside` keeps it in. */
  move(thing, x, y, inside = false) {
    const least = inside ? RADII[thing.size] * 0.9 : -1;
    thing.x = Math.min(Math.max(x, least), 1 - least);
    thing.y = Math.min(Math.max(y, least), 1 - least);
    this.#changed();
  }

  /** Give a thing another colour or size: `{colour}` or `{size}`. */
  alter(thing, look) {
    Object.assign(thing, look);
    this.#changed();
  }

  remove(thing) {
    this.things = this.things.filter((other) => other !== thing);
    if (this.chosen === thing) this.chosen = null;
    this.#changed();
  }

  /** The topmost thing at a point, or null. */
  at(x, y) {
    const hit = (thing) => Math.hypot(thing.x - x, thing.y - y) <= RADII[thing.size] * 1.15;
    return this.things.findLast(hit) ?? null;
  }

  /** Whether the middle of a thing has left the pond. */
  isOutside({ x, y }) {
    return x < 0 || x > 1 || y < 0 || y > 1;
  }

  #free(radius) {
    const centres = FIELDS.map((field) => ({ x: ((field % 3) * 2 + 1) / 6, y: (Math.floor(field / 3) * 2 + 1) / 6 }));
    const room = ({ x, y }) =>
      Math.min(...this.things.map((thing) => Math.hypot(thing.x - x, thing.y - y) - RADII[thing.size] - radius), 1);
    return centres.find((centre) => room(centre) >= 0) ?? centres.reduce((a, b) => (room(b) > room(a) ? b : a));
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** "large red circle" */
export function nameOf({ size, colour, shape }) {
  return `${size} ${colour} ${shape}`;
}

/** One of nine: "top left", "middle", ... */
export function placeOf({ x, y }) {
  const third = (part) => Math.min(2, Math.max(0, Math.floor(part * 3)));
  return [ROWS[third(y)], COLUMNS[third(x)]].filter(Boolean).join(" ") || "middle";
}
