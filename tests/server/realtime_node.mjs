// The unmodified `openai` package of Node against `/v1/realtime` over TLS. Prints one line of JSON for each answer.
// Arguments: the server's address, a picture as a data: URL, sound as base64 of PCM.
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";

const [url, picture, sound] = process.argv.slice(2);
const client = new OpenAI({ apiKey: "secret", baseURL: `${url}/v1` });
const realtime = new OpenAIRealtimeWS({ model: "gpt-realtime" }, client);

const until = (kind) =>
  new Promise((resolve, reject) => {
    realtime.once(kind, resolve);
    realtime.once("error", reject);
  });

const ask = async (...content) => {
  const done = until("response.done");
  realtime.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
  realtime.send({ type: "response.create" });
  const { response } = await done;
  console.log(JSON.stringify(response.output[0].content[0].text));
};

const text = (words) => ({ type: "input_text", text: words });
console.log(JSON.stringify((await until("session.created")).session.model));
const updated = until("session.updated");
const session = { type: "realtime", output_modalities: ["text"], audio: { input: { turn_detection: null } } };
realtime.send({ type: "session.update", session });
await updated;
await ask({ type: "input_image", image_url: picture }, text("What colour is the square?"));
await ask(text("And where is it?"));
const committed = until("input_audio_buffer.committed");
realtime.send({ type: "input_audio_buffer.append", audio: sound });
realtime.send({ type: "input_audio_buffer.commit" });
await committed;
await ask(text("How many beeps were there?"));
realtime.close();
