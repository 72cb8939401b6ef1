// What is wrong just now, in one line. In: texts, each about something. Out: the newest of those that still hold; one
// goes when what it is about works again. It knows nothing of what can go wrong.

export class Trouble {
  #element;
  #texts = new Map(); // by what they are about, the newest last

  constructor(element) {
    this.#element = element;
  }

  /** Something is wrong; an empty text: it is not any more. */
  tell(about, text) {
    this.#texts.delete(about);
    if (text !== "") this.#texts.set(about, text);
    this.#show();
  }

  /** All of these work again. */
  over(...about) {
    for (const name of about) this.#texts.delete(name);
    this.#show();
  }

  has(about) {
    return this.#texts.has(about);
  }

  #show() {
    const text = [...this.#texts.values()].at(-1) ?? "";
    if (this.#element.textContent !== text) this.#element.textContent = text;
    this.#element.hidden = text === "";
  }
}
