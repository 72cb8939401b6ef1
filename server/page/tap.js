// An audio worklet that hands on what it hears. In: any number of channels. Out: messages {samples, start}: 16-bit
// samples of one channel, about a tenth of a second, and when the first of them was heard (seconds of the context).

const PIECE_SECONDS = 0.1;

class Tap extends AudioWorkletProcessor {
  #piece = new Int16Array(Math.round(sampleRate * PIECE_SECONDS));
  #filled = 0;
  #start = 0;

  process([channels]) {
    const count = channels[0]?.length ?? 128;
    for (let i = 0; i < count; i += 1) {
      if (this.#filled === 0) this.#start = currentTime + i / sampleRate;
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      const mean = channels.length ? sum / channels.length : 0;
      this.#piece[this.#filled] = Math.max(-1, Math.min(1, mean)) * 32767;
      this.#filled += 1;
      if (this.#filled === this.#piece.length) this.#hand();
    }
    return true;
  }

  #hand() {
    const samples = this.#piece.slice();
    this.port.postMessage({ samples, start: this.#start }, [samples.buffer]);
    this.#filled = 0;
  }
}

registerProcessor("tap", Tap);
