// The bytes of /v1/stream (docs/wire.md). In: headers and payloads. Out: binary messages. Knows no sockets.

const encoder = new TextEncoder();

/** A binary message: length of the header (u16, little-endian), the header as JSON, the payload. */
export function packet(header, payload) {
  const head = encoder.encode(JSON.stringify(header));
  const message = new Uint8Array(2 + head.length + payload.byteLength);
  new DataView(message.buffer).setUint16(0, head.length, true);
  message.set(head, 2);
  message.set(new Uint8Array(payload), 2 + head.length);
  return message;
}

/** The subprotocols that a browser offers; a key is percent-encoded, for they cannot hold every character. */
export function subprotocols(key) {
  const code = (char) => `%${char.charCodeAt(0).toString(16)}`;
  const encoded = encodeURIComponent(key).replace(/[()]/g, code);
  return key ? ["penstock.v1", `penstock.key.${encoded}`] : ["penstock.v1"];
}
