// Push-to-talk: a button that opens the microphone while it is held, by pointer or by the space bar. In: a button and
// the sound that the model hears. Out: `open(whether)` as the microphone opens and closes, `said()` when something was
// said, `failed(text)`. It knows no streams.

const AFTER_MS = 300; // the last piece of sound is on its way

export class Push {
  #sound;
  #heard;
  #turn = 0; // counts presses
  #held = false;
  #stop = null; // closes the microphone that is open

  constructor(button, sound, heard) {
    this.#sound = sound;
    this.#heard = heard;
    button.addEventListener("pointerdown", (event) => {
      button.setPointerCapture(event.pointerId); // let go elsewhere, it is told here
      this.#press();
    });
    for (const name of ["pointerup", "pointercancel", "lostpointercapture", "blur"]) {
      button.addEventListener(name, () => this.#release());
    }
    button.addEventListener("keydown", (event) => event.key === " " && !event.repeat && this.#press());
    button.addEventListener("keyup", (event) => event.key === " " && this.#release());
  }

  async #press() {
    if (this.#held || this.#stop !== null) return;
    this.#held = true;
    const turn = ++this.#turn;
    try {
      const media = await navigator.mediaDevices.getUserMedia({ audio: true });
      const deaf = await this.#sound.listen(media);
      const stop = () => {
        deaf();
        for (const track of media.getTracks()) track.stop();
        this.#heard.open(false);
      };
      this.#heard.open(true);
      if (this.#held && turn === this.#turn) this.#stop = stop;
      else stop();
    } catch (error) {
      if (turn === this.#turn) this.#held = false;
      this.#heard.failed(`No microphone: ${error.message}`);
    }
  }

  #release() {
    if (!this.#held) return;
    this.#held = false;
    if (this.#stop === null) {
      this.#heard.failed("The microphone was not open yet: hold the button while you speak.");
      return;
    }
    window.setTimeout(() => {
      this.#stop();
      this.#stop = null;
      this.#heard.said();
    }, AFTER_MS);
  }
}
