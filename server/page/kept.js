// What it takes to go on with a connection that was lost (docs/wire.md): the server's token, how many of its messages
// came, and those of ours that it may not have. In: messages of both sides, in their order. Out: what to send. It knows
// no sockets.

const UNSURE_BYTES = 64 * 1024; // after so many the server is asked whether they came

export class Kept {
  seconds = 0; // that the server keeps the connection for
  bytes = 0; // of the messages that the server may not have
  #token = "";
  #received = 0;
  #sent = []; // what the server may not have, the oldest first
  #first = 0; // number of the first of these
  #asked = 0; // bytes that were there when the server was asked last

  /** Whether the server has said that it keeps the connection. */
  get kept() {
    return this.#token !== "";
  }

  /** A message of ours, which is sent now or later. Every one is to be told here, once. */
  add(message) {
    this.#sent.push(message);
    this.bytes += message.length;
  }

  /** Whether it is time to ask the server what has come. */
  get unsure() {
    return this.bytes - this.#asked > UNSURE_BYTES;
  }

  /** The message that asks; it is to be sent next. */
  ping() {
    this.#asked = this.bytes;
    return { type: "ping", ref: `${this.#first + this.#sent.length}` };
  }

  /** A message of the server. */
  take(message) {
    if (this.kept) this.#received += 1;
    else if (message.type === "kept") [this.#token, this.seconds] = [message.token, message.seconds];
    if (message.type === "pong" && message.ref) this.#came(Number(message.ref) + 1);
  }

  /** The message that asks the server to go on. */
  resume() {
    return { type: "resume", token: this.#token, received: this.#received };
  }

  /** The server goes on, and has so many messages of ours. Gives those that it has not. */
  resumed(received) {
    this.#came(received);
    return this.#sent;
  }

  /** The first `count` of our messages have come. */
  #came(count) {
    for (; this.#first < count && this.#sent.length > 0; this.#first += 1) {
      const { length } = this.#sent.shift();
      this.bytes -= length;
      this.#asked = Math.max(0, this.#asked - length);
    }
  }
}
