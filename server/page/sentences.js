// Cuts the tokens of a reply into sentences. In: texts of tokens and the media time each had seen. Out: sentences, a
// part for each media time. It knows neither the wire nor the page.

const LONGEST = 240;
const END = /(?<!\d)[.!?]["')\]]?\s*$|\n\s*$/;

/** `say` gives the sentence that the token belongs to; `whole` is true once it has ended. */
export class Sentences {
  #open = null;
  #count = 0;

  say(text, seen_us) {
    if (this.#open === null && text.trim() === "") return null;
    if (this.#open === null) {
      this.#open = { number: this.#count, parts: [], text: "", whole: false };
      this.#count += 1;
      text = text.trimStart();
    }
    const sentence = this.#open;
    const last = sentence.parts.at(-1);
    if (last && last.seen_us === seen_us) last.text += text;
    else sentence.parts.push({ text, seen_us });
    sentence.text += text;
    if (END.test(sentence.text) || sentence.text.length > LONGEST) this.end();
    return sentence;
  }

  /** The reply is over: what is open is whole. Gives it, or null. */
  end() {
    const sentence = this.#open;
    if (sentence !== null) sentence.whole = true;
    this.#open = null;
    return sentence;
  }
}
