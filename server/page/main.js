// The page: buttons, states and words around one stream. In: what a person does, what the server says. Out: the page.

import { Drift } from "./drift.js";
import { Link } from "./link.js";
import { Pictures } from "./pictures.js";
import { Pond } from "./pond.js";
import { Push } from "./push.js";
import { HEARD, questions, REQUEST, senses, waits } from "./questions.js";
import { Sound, SOUND_WORKS } from "./sound.js";
import { Sources } from "./sources.js";
import { showFigures, Status } from "./status.js";
import { Talk } from "./talk.js";
import { seconds, Told } from "./told.js";
import { Tools } from "./tools.js";
import { Trouble } from "./trouble.js";

const FRESH_MS = 3000; // A person sees why, before a new talk begins.
const SHORTEST_MS = 10_000; // What ends sooner would do so again.
const NAMES = {
  pond: "The model sees the pond from now on.",
  camera: "The model sees the camera from now on.",
  screen: "The model sees the screen from now on.",
  file: "The model sees the film from now on.",
};

const at = (id) => document.getElementById(id);
let talk = null;
let limits = {};
let modalities = [];
let source = "pond"; // whose pictures the model gets
let origin = null; // moment at which the times of the list begin
let away = true; // there is no connection just now
let anew = 0; // timer of the talk that begins by itself

const told = new Told(at("told"), at("caption"));
const trouble = new Trouble(at("trouble"));
const status = new Status(at("state"), at("doing"));
const pond = new Pond(at("pond"), () => drift(false));
const drifting = new Drift(pond);
const sound = new Sound((samples, rate, moment) => {
  status.sound(samples);
  talk?.sound(samples, rate, moment);
});
const sources = new Sources(pond, at("video"), sound, stopped);
const link = new Link({ state: showLink, welcome, message: take, lost });
new Pictures((pen, side) => sources.draw(pen, side), (file, moment) => talk?.frame(file, moment));
new Tools(at("shapes"), at("colours"), pond, () => trouble.tell("pond", "The pond holds four things: take one out first."));

function showLink({ name, text, seconds }) {
  at("key-form").hidden = name !== "key";
  away = name !== "open";
  if (away) return status.show(name, seconds ? `${text}, trying again in ${seconds} s` : text);
  trouble.over("link", "question", "talk");
  show(); // the talk may go on
}

/** The connection has gone for good, and the talk with it. */
function lost(text) {
  window.clearTimeout(anew);
  if (talk === null) return;
  told.abandoned("The connection is gone.");
  told.note(text);
  talk = null;
}

function take(message) {
  talk?.take(message);
  show();
}

function welcome(message) {
  limits = { rows: message.limits.kv_tokens, positions: message.limits.positions };
  modalities = message.modalities;
  at("knows").textContent = senses(message.model, modalities);
  at("push").disabled = at("high").disabled = at("low").disabled = !SOUND_WORKS || !modalities.includes("audio");
  at("chips").replaceChildren(...questions(message.model, modalities).map(chip));
  begin();
}

function chip(question) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = question;
  made.addEventListener("click", () => ask(question));
  return made;
}

/** A new stream; the model has forgotten everything before. */
function begin() {
  window.clearTimeout(anew);
  talk?.close();
  told.abandoned("A new talk has begun.");
  const mine = new Talk(link, limits, modalities, {
    opened: () => {
      origin ??= mine.started;
      trouble.over("talk", "question");
      if (modalities.includes("video")) narrate(at("narrate").checked);
      else mine.whenSeen(() => narrate(at("narrate").checked));
    },
    began: (reply) => told.began(reply, listed(mine, reply.beside ? reply.seen_us : mine.figures.seen_us)),
    token: (reply, text, seen_us) => {
      trouble.over("talk");
      told.say(reply, text, listed(mine, seen_us));
    },
    rested: (reply) => {
      told.rested(reply);
      show();
    },
    ended: (reply, reason, since_us = null) => ended(mine, reply, reason, listed(mine, since_us)),
    refused: (reply, text) => {
      told.refused(reply, text);
      if (reply.kind === "narration") at("narrate").checked = false;
    },
    failed: (text) => trouble.tell("talk", text),
    full: () => over("The model's memory is full, and this talk has come to its end. A new one begins by itself."),
    closed: (reason) => {
      const lasted = performance.now() - mine.started > SHORTEST_MS;
      if (mine.started && lasted) over(`This talk has ended (${reason}). A new one begins by itself.`);
      else trouble.tell("talk", `${at("trouble").textContent || `This talk has ended (${reason}).`} Start anew?`);
    },
  });
  talk = mine;
  show();
}

function ended(mine, reply, reason, since_us) {
  const answer = reply.kind === "question";
  const cut = reason === "interrupted" && reply.cut;
  if (cut) told.note("Interrupted.", reply);
  if (answer && reason === "overtaken") told.note("The next question has ended this answer.", reply);
  else if (answer && reply.told === 0) told.note("That question got no answer.", reply);
  else if (answer && since_us !== null) told.note(`It no longer saw what came before ${seconds(since_us)}.`, reply);
  told.ended(reply);
  if (reply.beside) return;
  if (mine.newest !== null || !at("narrate").checked) return;
  // Behind an answer narration goes on. Whoever cuts it short wants it no more.
  if (answer || reason === "length") mine.ask(REQUEST, "narration");
  else if (cut || reason === "error") at("narrate").checked = false;
}

/** The talk has come to its end; a new one begins when a person has read why. */
function over(text) {
  told.abandoned("This talk has ended.");
  told.note(text);
  window.clearTimeout(anew);
  anew = window.setTimeout(begin, FRESH_MS);
  show();
}

/** A media time of a talk as a time of the list, which goes on over several talks. */
function listed({ started }, time_us) {
  return time_us === null ? null : time_us + Math.round((started - origin) * 1000);
}

function show() {
  if (talk === null || away) return;
  if (talk.doing === "listening") status.show("listening", waits(modalities));
  else status.show(talk.doing);
}

/** Ask, where it can be asked now; else say why not, and give false. */
function ask(question) {
  const refusal = talk === null ? "There is no connection." : talk.refusal;
  trouble.tell("question", refusal && `Not asked. ${refusal}`);
  const reply = refusal === "" ? talk.ask(question, "question") : null;
  if (reply === null) return false;
  told.asked(reply);
  show();
  return true;
}

/** Narration is wanted, or is not any more; behind an answer that runs it begins by itself. */
function narrate(wanted) {
  const kind = talk?.newest?.kind;
  if (wanted && kind !== "question") talk?.ask(REQUEST, "narration");
  if (!wanted && kind === "narration") talk.cut();
}

/** The browser has ended a source: it was unplugged, or a person stopped sharing. */
async function stopped(name) {
  at("sources").querySelector("[value=pond]").checked = true;
  await choose("pond");
  trouble.tell("source", `The ${name} has stopped.`);
}

async function choose(name, file) {
  trouble.tell("source", Sources.refusal(name));
  at("film-tools").hidden = name !== "file";
  const wanted = trouble.has("source") || (name === "file" && !file) ? "pond" : name;
  try {
    if (!(await sources.use(wanted, file))) return; // another was chosen meanwhile
  } catch (error) {
    trouble.tell("source", `No ${name}: ${error.message}`);
  }
  const before = source;
  source = at("stage").dataset.source = sources.name;
  at("pond").hidden = source !== "pond";
  at("pond-tools").hidden = source !== "pond" || name === "file";
  at("video").hidden = source === "pond";
  fit();
  if (before !== "pond" || source !== "pond") lookAnew();
}

/** The stage has the shape of the camera's picture, and is else the square that the model gets. */
function fit() {
  const { videoWidth, videoHeight } = at("video");
  at("frame").style.setProperty("--aspect", source === "camera" && videoHeight ? videoWidth / videoHeight : 1);
}

/** What another source shows has nothing to do with what the model remembers: the talk begins anew. */
function lookAnew() {
  if (talk === null) return;
  told.note(NAMES[source]);
  begin();
}

/** Things of the pond move by themselves, or wait for a person's hand. */
function drift(wanted) {
  at("drift").setAttribute("aria-pressed", wanted);
  if (wanted) drifting.start();
  else drifting.stop();
}

at("size").addEventListener("click", () => pond.resize());
at("remove").addEventListener("click", () => {
  pond.remove();
  trouble.over("pond");
});
at("drift").addEventListener("click", () => drift(at("drift").getAttribute("aria-pressed") !== "true"));
for (const pitch of ["high", "low"]) at(pitch).addEventListener("click", () => sound.beep(pitch));
at("sources").addEventListener("change", ({ target }) => choose(target.value, at("film").files[0]));
at("film").addEventListener("change", ({ target }) => target.files[0] && choose("file", target.files[0]));
at("video").addEventListener("resize", fit);
at("narrate").addEventListener("change", ({ target }) => narrate(target.checked));
at("interrupt").addEventListener("click", () => talk?.interrupt());
at("anew").addEventListener("click", () => {
  told.clear();
  origin = null;
  if (talk !== null) begin();
});
at("ask-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = at("question").value.trim();
  if (question !== "" && ask(question)) at("question").value = "";
});
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  link.useKey(at("key").value.trim());
});
new Push(at("push"), sound, {
  open: (open) => {
    at("state").classList.toggle("hearing", open);
    if (open) trouble.over("microphone");
  },
  said: () => ask(HEARD),
  failed: (text) => trouble.tell("microphone", text),
});
window.addEventListener("pointerdown", () => sound.wake(), { once: true });
window.setInterval(() => talk && showFigures(talk.figures), 500);
drift(!window.matchMedia("(prefers-reduced-motion: reduce)").matches);
link.connect();
