// The unmodified `@google/genai` package of Node over plain WebSockets. Prints one line of JSON for each answer.
// Arguments: the server's address, a picture (JPEG) and sound (PCM of 16 bits at 24 kHz), both in base64.
import { GoogleGenAI, Modality } from "@google/genai";

const [url, picture, sound] = process.argv.slice(2);
const client = new GoogleGenAI({ apiKey: "secret", httpOptions: { baseUrl: url } });
const told = [];
let wake = () => {};
const onmessage = (message) => {
  told.push(message);
  wake();
};
const onclose = ({ code, reason }) => onmessage({ serverContent: { turnComplete: true, closed: [code, reason] } });
const session = await client.live.connect({
  model: "brook",
  config: { responseModalities: [Modality.TEXT], realtimeInputConfig: { automaticActivityDetection: { disabled: true } } },
  callbacks: { onmessage, onclose },
});

const turn = async () => {
  const said = [];
  do {
    while (!told.length) await new Promise((resolve) => (wake = resolve));
    said.push(told.shift().serverContent ?? {});
  } while (!said.at(-1).turnComplete);
  const words = said.flatMap((content) => content.modelTurn?.parts ?? []).map((part) => part.text);
  const cut = said.some((content) => content.interrupted);
  console.log(JSON.stringify(said.at(-1).closed ?? (cut ? "interrupted" : words.join(""))));
};

session.sendRealtimeInput({ video: { data: picture, mimeType: "image/jpeg" } });
session.sendClientContent({ turns: "What colour is the square?" });
await turn();
session.sendRealtimeInput({ activityStart: {} });
session.sendRealtimeInput({ audio: { data: sound, mimeType: "audio/pcm;rate=24000" } });
session.sendRealtimeInput({ text: "How many beeps were there?" });
session.sendRealtimeInput({ activityEnd: {} });
await turn();
session.sendClientContent({ turns: "Say what you see, all the time." });
session.sendClientContent({ turns: "And where is it?" });
await turn();
await turn();
session.sendRealtimeInput({ video: { data: "bm8gcGljdHVyZQ==", mimeType: "image/jpeg" } });
await turn();
