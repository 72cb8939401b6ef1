// The connection to the server: opened, watched, and gone on with over another WebSocket when one is lost. No message
// is lost then, and none comes twice. In: the page's address and a key. Out: states, a welcome, messages. It knows no
// streams.

import { Kept } from "./kept.js";
import { subprotocols } from "./wire.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;
const KEPT_WAIT_MS = 2_000; // between tries, while the server keeps the connection
const PING_MS = 15_000;
const ANSWER_MS = 10_000;
const FORGOTTEN =
  "The server no longer has this talk: the connection was gone for too long, or the server was started again. A new talk " +
  "begins.";
const LOST = 1006; // the close code of a WebSocket that ended without a close frame

/**
 * `heard.state({name, text, seconds})` is told each state: "connecting", "open", "gone" (tries again in `seconds`),
 * "key" (the server wants one), "refused" (trying again is useless). `heard.welcome(message)` begins a connection,
 * `heard.message(message)` is what the server says on it, and `heard.lost(text)` says why it has gone for good.
 */
export class Link {
  #heard;
  #socket = null;
  #up = false; // messages go out at once
  #kept = null; // what it takes to go on with this connection; null where the server has no such thing
  #welcome = null; // of a WebSocket that has asked to go on, until it is answered
  #left = []; // WebSockets that were given up, which the server may still take for open ones
  #gone = 0; // moment at which the connection was lost
  #key = "";
  #failures = 0;
  #timer = 0;
  #attempt = 0;
  #silent = 0; // pings' times since the server was last heard

  constructor(heard) {
    this.#heard = heard;
    window.addEventListener("online", () => this.#timer && this.connect());
    window.setInterval(() => this.#ping(), PING_MS);
  }

  /** Bytes that wait to be sent, or are on their way. */
  get waiting() {
    return Math.max(this.#socket?.bufferedAmount ?? 0, this.#kept?.bytes ?? 0);
  }

  useKey(key) {
    this.#key = key;
    this.connect();
  }

  /** Connect now, whatever went before. */
  async connect() {
    window.clearTimeout(this.#timer);
    this.#timer = 0;
    this.#leave();
    this.#attempt += 1;
    const attempt = this.#attempt;
    this.#heard.state({ name: "connecting", text: "Connecting" });
    const [status, reason] = await this.#access();
    if (attempt !== this.#attempt) return;
    if (status === 0) this.#retry("Server gone");
    else if (status === 204) this.#open();
    else if (status !== 401 && status !== 403) this.#retry(`Server not ready: ${reason}`);
    else {
      this.#end("The server does not let this page in any more.");
      if (status === 403) this.#heard.state({ name: "refused", text: `Refused: ${reason}` });
      else this.#heard.state({ name: "key", text: this.#key ? "Wrong key" : "Key wanted" });
    }
  }

  /** Send an object as JSON, or a binary message; while the connection is lost it waits. False where there is none. */
  send(message) {
    if (!this.#up && !this.#kept?.kept) return false;
    const data = message instanceof Uint8Array ? message : JSON.stringify(message);
    this.#kept?.add(data);
    if (this.#up) this.#socket.send(data);
    if (this.#up && this.#kept?.unsure) this.send(this.#kept.ping());
    return true;
  }

  /** What the server would say to a handshake, which a browser keeps to itself. Status 0: it does not answer. */
  async #access() {
    let headers;
    try {
      const bytes = String.fromCharCode(...new TextEncoder().encode(this.#key));
      headers = new Headers(bytes ? { Authorization: `Bearer ${bytes}` } : {});
    } catch {
      return [401, ""]; // characters that no header has, and so no key of a server
    }
    try {
      const answer = await fetch(this.#address("v1/access"), {
        headers,
        cache: "no-store",
        signal: AbortSignal.timeout(ANSWER_MS),
      });
      const refusal = answer.status === 204 ? {} : await answer.json();
      return [answer.status, refusal.error ?? ""];
    } catch {
      return [0, ""];
    }
  }

  /** An address of the server; it is told where a connection is gone on with, so that it lets us in when it is full. */
  #address(path) {
    return new URL(this.#kept === null ? path : `${path}?resume`, document.baseURI);
  }

  #open() {
    const address = this.#address("v1/stream");
    address.protocol = address.protocol.replace("http", "ws");
    const socket = new WebSocket(address, subprotocols(this.#key));
    this.#socket = socket;
    this.#silent = 0;
    let welcomed = false;
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      this.#silent = 0;
      if (message.type === "welcome") {
        welcomed = true;
        this.#failures = 0;
        this.#welcomed(message);
      } else if (this.#welcome !== null) {
        this.#answered(message);
      } else {
        this.#kept?.take(message);
        if (message.type !== "pong" && message.type !== "kept") this.#heard.message(message);
      }
    };
    socket.onclose = ({ code, reason }) => {
      if (code !== LOST) this.#kept = null;
      if (!welcomed) this.#retry(`No WebSocket for ${location.origin}: the server has gone, or see --allow-origin`);
      else if (code === 1012) this.#retry("Server going down");
      else this.#retry(reason ? `Server hung up: ${reason}` : "Server gone");
    };
  }

  /** A WebSocket is open: go on with the connection that was lost, or begin one. */
  #welcomed(welcome) {
    if (this.#kept === null) return this.#begin(welcome);
    this.#welcome = welcome;
    this.#socket.send(JSON.stringify(this.#kept.resume()));
  }

  #begin(welcome) {
    this.#up = true;
    if (welcome.limits.resume_seconds) {
      this.#socket.send(JSON.stringify({ type: "keep" }));
      this.#kept = new Kept();
    }
    this.#heard.state({ name: "open", text: "Connected" });
    this.#heard.welcome(welcome);
  }

  /** What the server says to a wish to go on. */
  #answered(message) {
    const welcome = this.#welcome;
    this.#welcome = null;
    if (message.type !== "resumed") {
      this.#end(FORGOTTEN);
      return this.#begin(welcome);
    }
    for (const data of this.#kept.resumed(message.received)) this.#socket.send(data);
    this.#up = true;
    this.#gone = 0;
    this.#closeLeft();
    this.#heard.state({ name: "open", text: "Connected" });
  }

  /** The WebSocket is of no use: try another one. */
  #retry(text) {
    this.#leave();
    this.#gone ||= performance.now();
    const gone = (performance.now() - this.#gone) / 1000;
    const seconds = this.#kept?.kept ? this.#kept.seconds : 0;
    const long = seconds ? ` for more than ${seconds} s` : "";
    if (gone >= seconds) this.#end(`The connection is gone${long}; the model's memory of this talk with it.`);
    const longest = this.#kept === null ? LONGEST_WAIT_MS : KEPT_WAIT_MS;
    const wait = Math.min(FIRST_WAIT_MS * 2 ** this.#failures, longest);
    this.#failures += 1;
    this.#heard.state({ name: "gone", text, seconds: wait / 1000 });
    window.clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => this.connect(), wait);
  }

  /** Hear no more of this WebSocket. It is not closed while the connection may be gone on with: that would end both. */
  #leave() {
    if (this.#socket === null) return;
    this.#socket.onmessage = this.#socket.onclose = null;
    this.#left.push(this.#socket);
    this.#socket = this.#welcome = null;
    this.#up = false;
  }

  /** The connection has gone for good. */
  #end(text) {
    this.#kept = null;
    this.#gone = 0;
    this.#closeLeft();
    this.#heard.lost(text);
  }

  #closeLeft() {
    for (const socket of this.#left.splice(0)) socket.close();
  }

  /** Keeps a connection alive that has nothing to say, and finds one that is dead without having been closed. */
  #ping() {
    if (this.#socket === null) return;
    if (this.#silent >= 2) return this.#retry("Server does not answer");
    this.#silent += 1;
    this.send(this.#kept?.ping() ?? { type: "ping" });
  }
}
