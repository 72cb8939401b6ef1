// How the pond looks: plain shapes on dark water, as in the films that Brook has learnt from. In: things, lengths in
// widths of the pond. Out: marks of a pen on a square.

import { RADII } from "./pond.js";

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
const WATER = "rgb(26 50 58)";
const RIM = 0.42; // of a ring, in radii
const ARM = 0.36; // half the width of a cross's arm, in radii

/** Draw everything; `chosen` is marked for the person, not for the model. */
export function paintPond(pen, side, things, chosen = null) {
  pen.fillStyle = WATER;
  pen.fillRect(0, 0, side, side);
  for (const thing of things) {
    pen.save();
    pen.translate(thing.x * side, thing.y * side);
    pen.scale(RADII[thing.size] * side, RADII[thing.size] * side);
    paintShape(pen, thing.shape, PAINTS[thing.colour]);
    if (thing === chosen) markChosen(pen);
    pen.restore();
  }
}

/** A shape of radius 1 around the origin. */
export function paintShape(pen, shape, paint) {
  pen.fillStyle = paint;
  pen.beginPath();
  if (shape === "circle" || shape === "ring") pen.arc(0, 0, 1, 0, 2 * Math.PI);
  if (shape === "ring") pen.arc(0, 0, 1 - RIM, 0, 2 * Math.PI, true);
  for (const [angle, length] of corners(shape)) pen.lineTo(Math.cos(angle) * length, Math.sin(angle) * length);
  pen.closePath();
  pen.fill();
}

function markChosen(pen) {
  pen.lineWidth = 0.07;
  for (const [paint, dashes] of [["rgb(0 0 0 / 60%)", []], ["white", [0.3, 0.2]]]) {
    pen.strokeStyle = paint;
    pen.setLineDash(dashes);
    pen.beginPath();
    pen.arc(0, 0, 1.3, 0, 2 * Math.PI);
    pen.stroke();
  }
}

/** Corners as [angle clockwise from the right, length]. */
function corners(shape) {
  const quarter = Math.PI / 2;
  const ring = (count, corner) => Array.from({ length: count }, (_, i) => corner(i));
  if (shape === "square") return ring(4, (i) => [quarter / 2 + quarter * i, 1.15]);
  if (shape === "triangle") return ring(3, (i) => [-quarter + ((2 * Math.PI) / 3) * i, 1.15]);
  if (shape === "star") return ring(10, (i) => [-quarter + (Math.PI / 5) * i, i % 2 ? 0.48 : 1.15]);
  if (shape !== "cross") return [];
  const tip = Math.atan2(ARM, 1);
  const sides = [[-tip, Math.hypot(ARM, 1)], [tip, Math.hypot(ARM, 1)], [quarter / 2, Math.hypot(ARM, ARM)]];
  return ring(12, (i) => [sides[i % 3][0] + quarter * Math.floor(i / 3), sides[i % 3][1]]);
}
