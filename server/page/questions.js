// What is asked for, and what models take, in words. In: the model's name, its modalities. Out: questions and sentences.

export const REQUEST = "Tell me what happens.";
export const HEARD = "What did you hear last?";

const BROOK =
  "Brook, the model that comes with Penstock, knows coloured shapes, what they do, high and low beeps, and the spoken " +
  "words zero to nine and eight colours.";
const OF_BROOK = ["What do you see?", "Where is the circle?", "How many things are there?", "What moved last?"];
const OF_ALL = ["What do you see?", "What is in the middle?", "Which colours are there?", "What has changed?"];

/** What a model does while it says nothing. */
export function waits(modalities) {
  if (modalities.includes("video")) return "Watching";
  return modalities.includes("audio") ? "Listening" : "Ready";
}

/** Four questions that this model can answer about a picture; none where it sees none. */
export function questions(model, modalities) {
  if (model === "brook") return OF_BROOK;
  return modalities.includes("video") || modalities.includes("image") ? OF_ALL : [];
}

/** What the model takes, in a sentence. */
export function senses(model, modalities) {
  if (model === "brook") return BROOK;
  const hears = modalities.includes("audio");
  if (modalities.includes("video")) return `${model} ${hears ? "looks and listens" : "looks, and does not listen"}.`;
  if (modalities.includes("image")) return `${model} gets one picture with each question.`;
  return `${model} ${hears ? "listens, and does not look" : "neither looks nor listens"}.`;
}
