// The pond: up to four coloured things on a canvas that a person puts in, drags, paints and takes out, with a pointer
// or with keys. In: presses and keys. Out: a picture for the person, and one without marks for the model; `touched()` when
// a person chooses or changes something. It knows no streams. Lengths are in widths of the pond.

export const SHAPES = ["circle", "square", "triangle", "star", "cross", "ring"];
export const PAINTS = {
  red: "rgb(220 40 40)",
  orange: "rgb(245 140 25)",
  yellow: "rgb(240 225 50)",
  green: "rgb(45 165 70)",
  blue: "rgb(45 85 220)",
  purple: "rgb(135 55 180)",
  pink: "rgb(250 150 190)",
  white: "rgb(240 240 240)",
};
const WATER = "rgb(16 52 60)";
const RADII = { large: 0.16, small: 0.095 };
const MOST = 4; // Brook has never seen more.
const FIELD = 1 / 3;
const FIELDS = Array.from({ length: 9 }, (_, i) => [((i % 3) + 0.5) / 3, (Math.floor(i / 3) + 0.5) / 3]); // middles
const NEAR = 0.3;
const START = [
  { shape: "circle", colour: "red", size: "large", x: 1 / 6, y: 1 / 6 },
  { shape: "star", colour: "yellow", size: "large", x: 1 / 2, y: 1 / 2 },
  { shape: "square", colour: "blue", size: "large", x: 5 / 6, y: 5 / 6 },
];
const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** A shape of radius 1 around the origin. */
export function outline(shape) {
  const path = new Path2D();
  const quarter = Math.PI / 2;
  const corners = (count, corner) => {
    for (let i = 0; i < count; i += 1) {
      const [angle, length] = corner(i);
      path.lineTo(Math.cos(angle) * length, Math.sin(angle) * length);
    }
  };
  const arm = 0.36; // half the width of a cross's arm
  const tip = Math.atan2(arm, 1);
  const side = [[-tip, Math.hypot(arm, 1)], [tip, Math.hypot(arm, 1)], [quarter / 2, Math.hypot(arm, arm)]];
  if (shape === "circle" || shape === "ring") path.arc(0, 0, 1, 0, 2 * Math.PI);
  if (shape === "ring") path.arc(0, 0, 0.58, 0, 2 * Math.PI, true);
  if (shape === "square") corners(4, (i) => [quarter / 2 + quarter * i, 1.15]);
  if (shape === "triangle") corners(3, (i) => [-quarter + ((2 * Math.PI) / 3) * i, 1.15]);
  if (shape === "star") corners(10, (i) => [-quarter + (Math.PI / 5) * i, i % 2 ? 0.48 : 1.15]);
  if (shape === "cross") corners(12, (i) => [side[i % 3][0] + quarter * Math.floor(i / 3), side[i % 3][1]]);
  path.closePath();
  return path;
}

export class Pond {
  #canvas;
  #touched;
  #things = START.map((thing) => ({ ...thing })); // The last lies on top.
  #chosen = null;
  #held = null; // {dx, dy} while the chosen thing is dragged

  constructor(canvas, touched) {
    this.#canvas = canvas;
    this.#touched = touched;
    canvas.addEventListener("pointerdown", (event) => this.#press(event));
    canvas.addEventListener("pointermove", (event) => this.#drag(event));
    canvas.addEventListener("pointerup", () => (this.#held = null));
    canvas.addEventListener("pointercancel", () => (this.#held = null));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    this.#show();
  }

  /** Put a thing on the first free field and choose it; false where the pond is full. */
  add(shape, colour) {
    if (this.#things.length >= MOST) return false;
    this.#touched();
    const [x, y] = FIELDS.find((field) => this.#free(field)) ?? [0.5, 0.5];
    this.#chosen = { shape, colour, size: "large", x, y };
    this.#things.push(this.#chosen);
    this.#show();
    return true;
  }

  /** Whether nothing lies at the middle of a field, nor near it; `except` does not count. */
  #free([x, y], except) {
    return this.#things.every((thing) => thing === except || Math.hypot(thing.x - x, thing.y - y) > NEAR);
  }

  /** Where things can move straight by one field: `{thing, x, y}` each. */
  ways() {
    const next = (thing, [x, y]) => {
      const [across, down] = [Math.abs(x - thing.x), Math.abs(y - thing.y)];
      return Math.min(across, down) < FIELD / 3 && Math.abs(Math.max(across, down) - FIELD) < FIELD / 3;
    };
    const free = (thing) => FIELDS.filter((field) => next(thing, field) && this.#free(field, thing));
    return this.#things.flatMap((thing) => free(thing).map(([x, y]) => ({ thing, x, y })));
  }

  /** Move a thing, without anybody's hand. */
  put(thing, x, y) {
    Object.assign(thing, { x, y });
    this.#show();
  }

  /** Give the chosen thing another colour. */
  paint(colour) {
    if (this.#chosen === null) return;
    this.#touched();
    this.#chosen.colour = colour;
    this.#show();
  }

  /** Small becomes large, large small. */
  resize() {
    if (this.#chosen === null) return;
    this.#touched();
    this.#chosen.size = this.#chosen.size === "large" ? "small" : "large";
    this.#show();
  }

  /** Take out the chosen thing; the one on top, where none is chosen. */
  remove() {
    this.#touched();
    this.#chosen ??= this.#things.at(-1) ?? null;
    this.#things = this.#things.filter((thing) => thing !== this.#chosen);
    this.#chosen = this.#things.at(-1) ?? null;
    this.#show();
  }

  /** The picture that the model gets. */
  draw(pen, side) {
    pen.fillStyle = WATER;
    pen.fillRect(0, 0, side, side);
    for (const thing of this.#things) {
      pen.save();
      pen.translate(thing.x * side, thing.y * side);
      pen.scale(RADII[thing.size] * side, RADII[thing.size] * side);
      pen.fillStyle = PAINTS[thing.colour];
      pen.fill(outline(thing.shape));
      pen.restore();
    }
    return true;
  }

  #show() {
    const pen = this.#canvas.getContext("2d");
    const side = this.#canvas.width;
    this.draw(pen, side);
    if (this.#chosen === null) return;
    pen.strokeStyle = "rgb(255 255 255 / 70%)";
    pen.lineWidth = side / 200;
    pen.setLineDash([side / 70, side / 70]);
    pen.beginPath();
    pen.arc(this.#chosen.x * side, this.#chosen.y * side, RADII[this.#chosen.size] * side * 1.3, 0, 2 * Math.PI);
    pen.stroke();
    pen.setLineDash([]);
  }

  #place(event) {
    const box = this.#canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  #press(event) {
    const [x, y] = this.#place(event);
    const hit = (thing) => Math.hypot(thing.x - x, thing.y - y) <= RADII[thing.size] * 1.15;
    this.#chosen = this.#things.findLast(hit) ?? null;
    if (this.#chosen !== null) {
      this.#touched();
      this.#held = { dx: this.#chosen.x - x, dy: this.#chosen.y - y };
      this.#canvas.setPointerCapture(event.pointerId);
    }
    this.#show();
  }

  #drag(event) {
    if (this.#held === null || this.#chosen === null) return;
    const [x, y] = this.#place(event);
    this.#move(x + this.#held.dx, y + this.#held.dy);
  }

  #move(x, y) {
    const least = RADII[this.#chosen.size];
    this.#chosen.x = Math.min(Math.max(x, least), 1 - least);
    this.#chosen.y = Math.min(Math.max(y, least), 1 - least);
    this.#show();
  }

  #key(event) {
    const way = WAYS[event.key];
    if (event.key.toLowerCase() === "n" && this.#things.length > 0) {
      this.#touched();
      this.#chosen = this.#things[(this.#things.indexOf(this.#chosen) + 1) % this.#things.length];
      this.#show();
    } else if (this.#chosen === null) {
      return;
    } else if (way) {
      this.#touched();
      this.#move(this.#chosen.x + way[0] * FIELD, this.#chosen.y + way[1] * FIELD);
    } else if (event.key === "Delete") {
      this.remove();
    } else {
      return;
    }
    event.preventDefault();
  }
}
