// A person's hand in the pond: pointer and keys on its canvas, and shapes that are pulled in from outside. In: browser
// events. Out: calls of the pond. It knows neither colours nor streams.

const STEP = 1 / 12; // of the pond's width, for a key
const PULL_PIXELS = 6; // A press that moves further is no click.
const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Things of `pond` can be dragged on `canvas`, moved with the arrow keys, chosen with N and removed with Delete. */
export function handIn(canvas, pond) {
  let held = null; // {thing, dx, dy}
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const [x, y] = placeIn(canvas, event);
    const thing = pond.at(x, y);
    pond.choose(thing);
    if (thing === null) return;
    held = { thing, dx: thing.x - x, dy: thing.y - y };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = placeIn(canvas, event);
    if (held === null) canvas.classList.toggle("over", pond.at(x, y) !== null);
    else pond.move(held.thing, x + held.dx, y + held.dy);
  });
  const drop = () => {
    if (held !== null && pond.isOutside(held.thing)) pond.remove(held.thing);
    held = null;
  };
  canvas.addEventListener("pointerup", drop);
  canvas.addEventListener("pointercancel", drop);
  canvas.addEventListener("keydown", (event) => keyIn(event, pond));
}

/** A key that is meant for the chosen thing. */
export function keyIn(event, pond) {
  const { things, chosen } = pond;
  const way = WAYS[event.key];
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "n" && things.length > 0) pond.choose(things[(things.indexOf(chosen) + 1) % things.length]);
  else if (chosen === null) return;
  else if (way) pond.move(chosen, chosen.x + way[0] * STEP, chosen.y + way[1] * STEP, true);
  else if (event.key === "Delete" || event.key === "Backspace") pond.remove(chosen);
  else if (event.key === "Escape") pond.choose(null);
  else return;
  event.preventDefault();
}

/** `button` can be clicked, which calls `make()`, or pulled onto the canvas, which calls `make(x, y)` there. */
export function pullFrom(button, canvas, pond, make) {
  let pulled = null; // {x, y, thing}: where the press began, and what it has become
  button.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    pulled = { x: event.clientX, y: event.clientY, thing: null };
    button.setPointerCapture(event.pointerId);
  });
  button.addEventListener("pointermove", (event) => {
    if (pulled === null || Math.hypot(event.clientX - pulled.x, event.clientY - pulled.y) < PULL_PIXELS) return;
    const [x, y] = placeIn(canvas, event);
    if (pulled.thing !== null) pond.move(pulled.thing, x, y);
    else if (!pond.isOutside({ x, y })) pulled.thing = make(x, y);
  });
  const drop = (event) => {
    const thing = pulled?.thing ?? null;
    const was = pulled;
    pulled = null;
    if (thing !== null && pond.isOutside(thing)) pond.remove(thing);
    // The click that follows a pull is none; so is that of a pull that ended nowhere.
    const far = was !== null && Math.hypot(event.clientX - was.x, event.clientY - was.y) >= PULL_PIXELS;
    if (thing !== null || far) button.addEventListener("click", swallow, { capture: true, once: true });
    if (thing !== null || far) window.setTimeout(() => button.removeEventListener("click", swallow, true));
  };
  button.addEventListener("pointerup", drop);
  button.addEventListener("pointercancel", drop);
  button.addEventListener("click", () => make());
}

function swallow(event) {
  event.stopImmediatePropagation();
}

function placeIn(canvas, event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}
