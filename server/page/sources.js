// Where pictures come from: the pond, a camera, the screen, a film. In: the name of a source. Out: something to draw,
// and sound for the model. It knows no streams.

import { drawVideo } from "./pictures.js";

export class Sources {
  #pond;
  #video;
  #sound;
  #stopped; // (name): the browser has ended it
  #name = "pond";
  #turn = 0; // counts changes
  #release = () => {};
  #played = false; // the video element has been given to the sound: once is all it takes

  constructor(pond, video, sound, stopped) {
    this.#stopped = stopped;
    this.#pond = pond;
    this.#video = video;
    this.#sound = sound;
  }

  /** Why a source cannot be had here, or "". */
  static refusal(name) {
    const devices = navigator.mediaDevices;
    if (name === "camera" && !devices?.getUserMedia) return SECURE;
    if (name === "screen" && !devices?.getDisplayMedia) return devices ? "This browser does not share a screen." : SECURE;
    return "";
  }

  /** The source that is drawn. */
  get name() {
    return this.#name;
  }

  draw(pen, side) {
    if (this.#name === "pond") return this.#pond.draw(pen, side);
    return drawVideo(pen, side, this.#video, this.#name === "camera" ? "cover" : "contain");
  }

  /** Change to a source; `file` is the film. False where another was chosen meanwhile. Throws what the browser throws. */
  async use(name, file) {
    const turn = ++this.#turn;
    this.#stop();
    try {
      if (name === "camera" || name === "screen") await this.#watch(name, turn);
      else if (name === "file") await this.#play(file, turn);
    } catch (error) {
      if (turn !== this.#turn) return false;
      this.#stop();
      throw error;
    }
    if (turn === this.#turn) this.#name = name;
    return turn === this.#turn;
  }

  async #watch(name, turn) {
    const media = await open(name);
    const end = () => media.getTracks().forEach((track) => track.stop());
    if (turn !== this.#turn) return end();
    const video = this.#video;
    let deaf = () => {};
    this.#release = () => {
      deaf();
      end();
      video.srcObject = null;
    };
    media.getVideoTracks()[0].addEventListener("ended", () => turn === this.#turn && this.#stopped(name));
    video.muted = true;
    video.srcObject = media;
    deaf = await this.#sound.listen(media);
    if (turn !== this.#turn) return deaf(); // it was released while it was not heard yet
    await video.play();
  }

  async #play(file, turn) {
    const video = this.#video;
    const address = URL.createObjectURL(file);
    this.#release = () => {
      video.pause();
      video.controls = false;
      video.removeAttribute("src");
      video.load();
      URL.revokeObjectURL(address);
    };
    video.muted = false;
    video.src = address;
    video.controls = true;
    this.#played ||= await this.#sound.play(video);
    if (turn === this.#turn) await video.play();
  }

  #stop() {
    this.#release();
    this.#release = () => {};
    this.#name = "pond";
  }
}

/** Pictures with sound; without sound where there is no microphone. */
async function open(name) {
  const devices = navigator.mediaDevices;
  if (name === "screen") return devices.getDisplayMedia({ video: true, audio: true });
  try {
    return await devices.getUserMedia({ video: true, audio: true });
  } catch (error) {
    if (error.name !== "NotFoundError") throw error;
    return devices.getUserMedia({ video: true });
  }
}

const SECURE =
  "Browsers give camera, microphone and screen to secure pages only. Open this page on the server's own machine, or " +
  "start the server with --tls-cert and --tls-key.";
