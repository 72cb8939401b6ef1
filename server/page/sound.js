// The sound that the model gets, and the beeps that both hear. In: beeps, microphones, media elements. Out: pieces of
// 16-bit samples with the moment (of `performance.now()`) when they began; none where nothing has sounded for a while. It
// knows no streams.

const BEEPS = { high: 1500, low: 350 }; // Hz
const BEEP_SECONDS = 0.22;
const RAMP_SECONDS = 0.008;
const LOUDNESS = 0.35;
const SILENCE_SECONDS = 2; // so much of it goes behind a sound, which then ends for the model, too; more would say nothing

/** The browser gives samples to pages only where they are secure. */
export const SOUND_WORKS = window.isSecureContext && "AudioWorkletNode" in window;

export class Sound {
  #heard; // (samples, rate, moment)
  #context = null;
  #sounded = -Infinity; // when the last piece began in which something sounded, seconds of the context
  #starting = null; // a promise, once somebody wanted sound
  #bus = null; // everything that the model hears goes through it

  constructor(heard) {
    this.#heard = heard;
  }

  /** Start, or go on after the browser stopped it; it wants a click or a key first. False where there is no sound. */
  async wake() {
    if (!SOUND_WORKS) return false;
    this.#starting ??= this.#start();
    try {
      await this.#starting;
    } catch {
      this.#starting = null; // the server has gone, say: the next click tries again
      return false;
    }
    await this.#context.resume();
    return true;
  }

  async #start() {
    const context = new AudioContext({ latencyHint: "interactive" });
    try {
      await context.audioWorklet.addModule(new URL("tap.js", import.meta.url));
    } catch (error) {
      await context.close();
      throw error;
    }
    const tap = new AudioWorkletNode(context, "tap", { channelCount: 1, channelCountMode: "explicit" });
    tap.port.onmessage = ({ data }) => this.#hand(data);
    this.#bus = new GainNode(context);
    this.#bus.connect(tap).connect(context.destination); // It gives out silence; without a way out it would not run.
    this.#context = context;
  }

  /** "high" or "low". */
  async beep(pitch) {
    if (!(await this.wake())) return;
    const context = this.#context;
    const start = context.currentTime + 0.01;
    const stop = start + BEEP_SECONDS;
    const tone = new OscillatorNode(context, { frequency: BEEPS[pitch] });
    const hull = new GainNode(context, { gain: 0 });
    hull.gain.setValueAtTime(0, start);
    hull.gain.linearRampToValueAtTime(LOUDNESS, start + RAMP_SECONDS);
    hull.gain.setValueAtTime(LOUDNESS, stop - RAMP_SECONDS);
    hull.gain.linearRampToValueAtTime(0, stop);
    tone.connect(hull);
    hull.connect(this.#bus);
    hull.connect(context.destination);
    tone.start(start);
    tone.stop(stop);
  }

  /** The model hears `media` (a MediaStream) from now on; call what is returned to end that. */
  async listen(media) {
    if (media.getAudioTracks().length === 0 || !(await this.wake())) return () => {};
    const source = new MediaStreamAudioSourceNode(this.#context, { mediaStream: media });
    source.connect(this.#bus);
    return () => source.disconnect();
  }

  /** The model and the person hear the film in `element`; once for each element. False where there is no sound. */
  async play(element) {
    if (!(await this.wake())) return false;
    const source = new MediaElementAudioSourceNode(this.#context, { mediaElement: element });
    source.connect(this.#bus);
    source.connect(this.#context.destination);
    return true;
  }

  #hand({ samples, start }) {
    const context = this.#context;
    if (samples.some((sample) => sample !== 0)) this.#sounded = start;
    if (start - this.#sounded > SILENCE_SECONDS) return;
    const moment = performance.now() - (context.currentTime - start) * 1000;
    this.#heard(samples, context.sampleRate, moment);
  }
}
