// Where pictures come from: the pond, a camera, the screen, a film. In: the name of a source. Out: something to draw,
// and sound for the model. It knows no streams.

import { drawVideo } from "./pictures.js";

export class Sources {
  #pond;
  #video;
  #sound;
  #name = "pond";
  #release = () => {};
  #played = false; // the video element has been given to the sound: once is all it takes

  constructor(pond, video, sound) {
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

  draw(pen, side) {
    if (this.#name === "pond") return this.#pond.draw(pen, side);
    return drawVideo(pen, side, this.#video, this.#name === "camera" ? "cover" : "contain");
  }

  /** Change to a source; `file` is the film. Throws what the browser throws. */
  async use(name, file) {
    this.#stop();
    const video = this.#video;
    if (name === "camera" || name === "screen") {
      const media = await open(name);
      video.muted = true;
      video.srcObject = media;
      const deaf = await this.#sound.listen(media);
      this.#release = () => {
        deaf();
        for (const track of media.getTracks()) track.stop();
        video.srcObject = null;
      };
      await video.play();
    } else if (name === "file") {
      const address = URL.createObjectURL(file);
      video.muted = false;
      video.src = address;
      video.controls = true;
      if (!this.#played) await this.#sound.play(video);
      this.#played = true;
      this.#release = () => {
        video.pause();
        video.controls = false;
        video.removeAttribute("src");
        video.load();
        URL.revokeObjectURL(address);
      };
      await video.play();
    }
    this.#name = name;
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
