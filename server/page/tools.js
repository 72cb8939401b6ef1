// The buttons of the pond: shapes to put in, colours to paint with. In: a pond, places for the buttons. Out: things that
// are put in and painted; `full()` where no more go in. It knows no streams.

import { outline, PAINTS, SHAPES } from "./pond.js";

const SIDE = 56; // pixels of a button's picture, shown at half of that

export class Tools {
  #shapes;
  #colours;
  #colour = "";

  constructor(shapes, colours, pond, full) {
    this.#shapes = shapes;
    this.#colours = colours;
    for (const shape of SHAPES) {
      shapes.append(button(`Put in a ${shape}`, shape, () => pond.add(shape, this.#colour) || full()));
    }
    for (const name of Object.keys(PAINTS)) {
      const press = () => {
        this.#choose(name);
        pond.paint(name);
      };
      const made = button(name, "circle", press);
      fill(made, "circle", PAINTS[name]);
      colours.append(made);
    }
    this.#choose("red");
  }

  /** What is put in next has this colour, and so have its buttons. */
  #choose(name) {
    this.#colour = name;
    for (const made of this.#colours.children) made.setAttribute("aria-pressed", made.title === name);
    for (const made of this.#shapes.children) fill(made, made.dataset.shape, PAINTS[name]);
  }
}

function button(name, shape, press) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "paint";
  made.title = name;
  made.dataset.shape = shape;
  made.setAttribute("aria-label", name);
  made.append(Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE }));
  made.addEventListener("click", press);
  return made;
}

function fill(made, shape, paint) {
  const pen = made.firstChild.getContext("2d");
  pen.reset();
  pen.translate(SIDE / 2, SIDE / 2);
  pen.scale(SIDE * 0.4, SIDE * 0.4);
  pen.fillStyle = paint;
  pen.fill(outline(shape));
}
