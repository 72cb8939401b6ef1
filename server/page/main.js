// The page: buttons, states and words around one stream. In: what a person does, what the server says. Out: the page.

import { Link } from "./link.js";
import { Pictures } from "./pictures.js";
import { outline, PAINTS, Pond, SHAPES } from "./pond.js";
import { Push } from "./push.js";
import { Sentences } from "./sentences.js";
import { Sound, SOUND_WORKS } from "./sound.js";
import { Sources } from "./sources.js";
import { Talk } from "./talk.js";

const REQUEST = "Tell me what happens.";
const HEARD = "What did you hear last?";
const MOST_LINES = 200;
const BROOK =
  "Brook, the model that comes with Penstock, knows coloured shapes, what they do, high and low beeps, and the spoken " +
  "words zero to nine and eight colours. Put something in the pond and ask about it.";

const at = (id) => document.getElementById(id);
let talk = null;
let sentences = new Sentences();
let lines = new Map(); // of the running reply, by sentence
let colour = "red";
let limits = {};
let modalities = [];
let source = "pond"; // whose pictures the model gets

const pond = new Pond(at("pond"));
const sound = new Sound((samples, rate, moment) => talk?.sound(samples, rate, moment));
const sources = new Sources(pond, at("video"), sound, stopped);
const link = new Link({ state: showState, welcome, message: (message) => message.stream === talk?.name && talk.take(message) });
new Pictures((pen, side) => sources.draw(pen, side), (file, moment) => talk?.frame(file, moment));

function showState({ name, text, seconds }) {
  at("state").dataset.state = name;
  at("state").textContent = seconds ? `${text}, trying again in ${seconds} s` : text;
  at("key-form").hidden = name !== "key";
  if (name !== "open" && talk !== null) {
    note("The connection is gone; the model's memory of this talk with it.");
    talk = null;
  }
}

function welcome(message) {
  limits = { rows: message.limits.kv_tokens, positions: message.limits.positions };
  modalities = message.modalities;
  at("knows").textContent = message.model === "brook" ? BROOK : `${message.model} ${senses()}.`;
  at("push").disabled = at("high").disabled = at("low").disabled = !SOUND_WORKS || !modalities.includes("audio");
  begin();
}

function senses() {
  const hears = modalities.includes("audio");
  if (modalities.includes("video")) return hears ? "looks and listens" : "looks, and does not listen";
  if (modalities.includes("image")) return "gets one picture with each question";
  return hears ? "listens, and does not look" : "neither looks nor listens";
}

function begin() {
  talk?.close();
  const mine = new Talk(link, limits, modalities, {
    opened: () => {
      if (modalities.includes("video")) narrate(at("narrate").checked);
      else mine.whenSeen(() => narrate(at("narrate").checked));
    },
    began: (reply) => {
      sentences = new Sentences();
      lines = new Map();
      if (reply.kind === "question") line("question", mine.at_us(), reply.question);
    },
    token: (reply, event) => say(event.text, event.seen?.stop_us ?? mine.figures.seen_us),
    ended: (reply, reason) => {
      sentences.end();
      if (reason === "interrupted" && reply.noted) note("Interrupted.");
      else if (mine.newest === null && at("narrate").checked && (reply.kind === "question" || reason === "length")) {
        mine.ask(REQUEST, "narration");
      }
    },
    failed: (text) => note(text),
    closed: (reason) => note(`This talk has ended (${reason}): start anew.`),
  });
  talk = mine;
}

function say(text, seen_us) {
  const sentence = sentences.say(text, seen_us);
  if (sentence === null) return;
  const item = lines.get(sentence.number) ?? line("said", sentence.parts[0].seen_us, "");
  lines.set(sentence.number, item);
  item.querySelector("div").replaceChildren(...sentence.parts.map(part));
  at("told").scrollTop = at("told").scrollHeight; // it may have grown by a line
}

/** Words that had seen the same; style.css shows the time where it changes within a sentence. */
function part({ text, seen_us }) {
  const words = document.createElement("span");
  words.textContent = text;
  if (seen_us !== null) {
    words.dataset.seen = seconds(seen_us);
    words.title = `had seen up to ${seconds(seen_us)}`;
  }
  return words;
}

function seconds(time_us) {
  return `${(time_us / 1e6).toFixed(1)} s`;
}

function line(kind, time_us, text) {
  const list = at("told");
  const item = document.createElement("li");
  item.className = kind;
  const time = document.createElement("time");
  time.textContent = time_us === null ? "" : seconds(time_us);
  const words = document.createElement("div");
  words.textContent = text;
  item.append(time, words);
  list.append(item);
  while (list.children.length > MOST_LINES) list.firstChild.remove();
  list.scrollTop = list.scrollHeight;
  return item;
}

function note(text) {
  line("note", null, text);
}

/** Ask, where it can be asked now; else say why not, and give false. */
function ask(question) {
  const refusal = talk === null ? "There is no connection." : talk.refusal;
  trouble(refusal && `Not asked. ${refusal}`);
  return refusal === "" && talk.ask(question, "question");
}

/** Narration is wanted, or is not any more; behind an answer that runs it begins by itself. */
function narrate(wanted) {
  const kind = talk?.newest?.kind;
  if (wanted && kind !== "question") talk?.ask(REQUEST, "narration");
  if (!wanted && kind === "narration") talk.interrupt();
}

/** The browser has ended a source: it was unplugged, or a person stopped sharing. */
async function stopped(name) {
  at("sources").querySelector("[value=pond]").checked = true;
  await choose("pond");
  trouble(`The ${name} has stopped.`);
}

function trouble(text) {
  at("trouble").textContent = text;
  at("trouble").hidden = text === "";
}

async function choose(name, file) {
  trouble(Sources.refusal(name));
  at("film").hidden = name !== "file";
  const shown = name === "pond" || !at("trouble").hidden || (name === "file" && !file);
  try {
    if (!(await sources.use(shown ? "pond" : name, file))) return; // another was chosen meanwhile
  } catch (error) {
    trouble(`No ${name}: ${error.message}`);
  }
  const pondShown = shown || !at("trouble").hidden;
  at("pond").hidden = at("pond-tools").hidden = !pondShown;
  at("video").hidden = pondShown;
  const before = source;
  source = sources.name;
  if (before !== "pond" || source !== "pond") lookAnew();
}

/** All is another picture: narration, which tells what changes, ends, and begins again with what is there then. */
function lookAnew() {
  if (talk?.refusal !== "") return;
  if (talk.newest?.kind === "narration") talk.interrupt(false);
  talk.whenSeen(() => {
    // One that is asked for and has not begun comes behind this picture already.
    if (at("narrate").checked && talk.asked.at(-1)?.kind !== "narration") narrate(true);
  });
}

function button(name, paint, shape, press) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "paint";
  made.title = name;
  made.setAttribute("aria-label", name);
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 28;
  const pen = canvas.getContext("2d");
  pen.translate(14, 14);
  pen.scale(11, 11);
  pen.fillStyle = paint;
  pen.fill(outline(shape));
  made.append(canvas);
  made.addEventListener("click", press);
  return made;
}

function choosePaint(name) {
  colour = name;
  for (const made of at("colours").children) made.setAttribute("aria-pressed", made.title === name);
}

for (const shape of SHAPES) {
  const add = () => pond.add(shape, colour) || trouble("The pond holds four things: take one out first.");
  at("shapes").append(button(`Put in a ${shape}`, "gray", shape, add));
}
for (const [name, paint] of Object.entries(PAINTS)) {
  const press = () => {
    choosePaint(name);
    pond.paint(name);
  };
  at("colours").append(button(name, paint, "square", press));
}
choosePaint(colour);
at("size").addEventListener("click", () => pond.resize());
at("remove").addEventListener("click", () => {
  pond.remove();
  trouble("");
});
for (const pitch of ["high", "low"]) at(pitch).addEventListener("click", () => sound.beep(pitch));
at("sources").addEventListener("change", ({ target }) => choose(target.value, at("film").files[0]));
at("film").addEventListener("change", ({ target }) => target.files[0] && choose("file", target.files[0]));
at("narrate").addEventListener("change", ({ target }) => narrate(target.checked));
at("interrupt").addEventListener("click", () => talk?.interrupt());
at("anew").addEventListener("click", () => {
  at("told").replaceChildren();
  begin();
});
at("ask-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = at("question").value.trim();
  if (question !== "" && ask(question)) at("question").value = "";
});
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  link.useKey(at("key").value);
});

new Push(at("push"), sound, { said: () => ask(HEARD), failed: trouble });

window.addEventListener("pointerdown", () => sound.wake(), { once: true });
window.setInterval(() => {
  if (talk === null) return;
  const { latency, freshness, dropped, memory } = talk.figures;
  at("latency").textContent = latency === null ? "-" : `${latency.toFixed(0)} ms`;
  at("freshness").textContent = freshness === null ? "-" : `${freshness.toFixed(0)} ms`;
  at("dropped").textContent = dropped;
  at("memory").textContent = `${(100 * memory).toFixed(0)} %`;
}, 500);

link.connect();
