// A question that is answered beside a stream which goes on: a copy of the stream answers it, and is closed then
// (docs/wire.md, "fork"). In: a link, what is asked, the server's messages for the copy. Out: calls of `heard`. It
// knows neither the stream's own replies nor how answers are shown.

/**
 * `heard` has `began(reply)`, `token(reply, text, seen_us)`, `ended(reply, reason, since_us)`, `refused(reply, text)`
 * and `failed(text)`, as that of a talk, and `over(aside)`: no more comes of it.
 */
export class Aside {
  name;
  reply;
  #link;
  #heard;
  #early = []; // of replies of the copy, before the server has said which of them is ours

  /** `appends` are messages of media that the copy gets before the question `ask`, which has the copy's name. */
  constructor(link, source, reply, appends, ask, heard) {
    this.name = ask.stream;
    this.reply = reply;
    this.#link = link;
    this.#heard = heard;
    link.send({ type: "fork", stream: source, as: this.name, ref: reply.ref });
    link.send({ type: "interrupt", stream: this.name }); // in the copy too the stream speaks
    for (const message of [...appends, ask]) link.send(message);
  }

  interrupt() {
    this.reply.cut = true;
    this.#link.send({ type: "interrupt", stream: this.name });
  }

  /** Its answer is not wanted any more. */
  close() {
    this.#link.send({ type: "close", stream: this.name });
    this.#heard.over(this);
  }

  /** A message of the server about the copy, or about this question. */
  take(message) {
    const { reply } = this;
    switch (message.type) {
      case "accepted":
        if (message.ref === reply.ref) this.#begin(message.reply);
        break;
      case "token":
      case "done":
        if (reply.id === 0) this.#early.push(message);
        else if (message.reply === reply.id) this.#said(message);
        break;
      case "error":
        if (message.ref === reply.ref || message.fatal) this.#fail(message.message);
        else this.#heard.failed(message.message);
        break;
      case "closed":
        this.#fail(`It has ended (${message.reason}).`);
        break;
    }
  }

  #begin(id) {
    this.reply.id = id;
    this.#heard.began(this.reply);
    for (const message of this.#early.splice(0)) if (message.reply === id) this.#said(message);
  }

  #said({ type, text, seen, reason, since_us }) {
    const { reply } = this;
    if (text) {
      reply.told += 1;
      this.#heard.token(reply, text, seen?.stop_us ?? reply.seen_us);
    }
    if (type !== "done") return;
    this.#heard.ended(reply, reason, since_us);
    this.close();
  }

  #fail(text) {
    const { reply } = this;
    if (reply.id === 0) this.#heard.refused(reply, text);
    else {
      this.#heard.failed(text);
      this.#heard.ended(reply, "error");
    }
    this.#heard.over(this);
  }
}
