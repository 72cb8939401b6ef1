// The connection to the server: opened, watched, and opened again when it is lost.
// In: the page's address and a key. Out: states, a welcome, messages. It knows no streams.

import { subprotocols } from "./wire.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;
const PING_MS = 15_000;
const ANSWER_MS = 10_000;

/**
 * `heard.state({name, text, seconds})` is told each state: "connecting", "open", "gone" (tries again in `seconds`),
 * "key" (the server wants one), "refused" (trying again is useless); `heard.welcome(message)` and
 * `heard.message(message)` get what the server says.
 */
export class Link {
  #heard;
  #socket = null;
  #key = "";
  #failures = 0;
  #timer = 0;
  #attempt = 0;
  #pings = 0; // Sent since the server was last heard.

  constructor(heard) {
    this.#heard = heard;
    window.addEventListener("online", () => this.#timer && this.connect());
    window.setInterval(() => this.#ping(), PING_MS);
  }

  /** Bytes that wait to be sent. */
  get waiting() {
    return this.#socket === null ? 0 : this.#socket.bufferedAmount;
  }

  useKey(key) {
    this.#key = key;
    this.connect();
  }

  /** Connect now, whatever went before. */
  async connect() {
    window.clearTimeout(this.#timer);
    this.#timer = 0;
    this.#drop();
    this.#attempt += 1;
    const attempt = this.#attempt;
    this.#heard.state({ name: "connecting", text: "Connecting" });
    const [status, reason] = await this.#access();
    if (attempt !== this.#attempt) return;
    if (status === 0) this.#retry("Server gone");
    else if (status === 401) this.#heard.state({ name: "key", text: this.#key ? "Wrong key" : "Key wanted" });
    else if (status === 403) this.#heard.state({ name: "refused", text: `Refused: ${reason}` });
    else if (status !== 204) this.#retry(`Server not ready: ${reason}`);
    else this.#open();
  }

  /** Send an object as JSON, or a binary message. False where there is no connection. */
  send(message) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(message instanceof Uint8Array ? message : JSON.stringify(message));
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
      const answer = await fetch(new URL("v1/access", document.baseURI), {
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

  #open() {
    const address = new URL("v1/stream", document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = new WebSocket(address, subprotocols(this.#key));
    this.#socket = socket;
    let welcomed = false;
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      this.#pings = 0;
      if (message.type === "welcome") {
        welcomed = true;
        this.#failures = 0;
        this.#heard.state({ name: "open", text: "Connected" });
        this.#heard.welcome(message);
      } else if (message.type !== "pong") {
        this.#heard.message(message);
      }
    };
    socket.onclose = ({ code, reason }) => {
      if (!welcomed) this.#retry(`No WebSocket for ${location.origin}: the server has gone, or see --allow-origin`);
      else if (code === 1012) this.#retry("Server going down");
      else this.#retry(reason ? `Server hung up: ${reason}` : "Server gone");
    };
  }

  #retry(text) {
    this.#drop();
    const wait = Math.min(FIRST_WAIT_MS * 2 ** this.#failures, LONGEST_WAIT_MS);
    this.#failures += 1;
    this.#heard.state({ name: "gone", text, seconds: wait / 1000 });
    window.clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => this.connect(), wait);
  }

  #drop() {
    if (this.#socket === null) return;
    this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#socket = null;
  }

  /** Keeps a connection alive that has nothing to say, and finds one that is dead without having been closed. */
  #ping() {
    if (this.#pings >= 2) {
      this.#pings = 0;
      this.#retry("Server does not answer");
    } else if (this.send({ type: "ping" })) {
      this.#pings += 1;
    }
  }
}
