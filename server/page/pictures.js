// The frames that the model gets. In: something that draws itself on a square. Out: JPEG files, a few a second, each
// with the moment (of `performance.now()`) when it was drawn. It knows no streams.

export const SIDE = 224;
const EVERY_MS = 250;
const QUALITY = 0.85;

export class Pictures {
  #draw; // (pen, side): false where there is nothing to see yet
  #heard; // (file, moment)
  #canvas = Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE });
  #pen = this.#canvas.getContext("2d", { alpha: false });
  #busy = false;

  constructor(draw, heard) {
    this.#draw = draw;
    this.#heard = heard;
    window.setInterval(() => this.#take(), EVERY_MS);
  }

  #take() {
    if (this.#busy || !this.#draw(this.#pen, SIDE)) return;
    const moment = performance.now();
    this.#busy = true;
    this.#canvas.toBlob(
      async (file) => {
        this.#busy = false;
        if (file !== null) this.#heard(await file.arrayBuffer(), moment);
      },
      "image/jpeg",
      QUALITY,
    );
  }
}

/** Draw a picture of a video on a square: "cover" fills it and cuts the sides off, "contain" shows all of it. */
export function drawVideo(pen, side, video, fit) {
  const { videoWidth: width, videoHeight: height } = video;
  if (width === 0 || video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return false;
  const scale = side / (fit === "cover" ? Math.min(width, height) : Math.max(width, height));
  pen.fillStyle = "black";
  pen.fillRect(0, 0, side, side);
  pen.drawImage(video, (side - width * scale) / 2, (side - height * scale) / 2, width * scale, height * scale);
  return true;
}
