// The page: one photo, one request to /compare, one answer shown. Addresses are relative, so that
// they hold behind a proxy's prefix too.
import { BoxEditor } from "./box.js";

const METHODS = { cam: "CAM", gradcam: "Grad-CAM" };
const NO_EVIDENCE = {
  empty: "no positive evidence",
  constant: "the heatmap is constant",
  nonfinite: "the heatmap is not finite",
};
const CONFIDENCE = {
  ok: "Normal confidence for a photo of a dog.",
  low: "Low confidence: unlike the photos the model was trained on, or no breed stands out.",
  null: "Confidence has not been calibrated for this model.",
};
const PREDICTIONS = 5;
const PAUSE_MS = 120; // after a change, for the next one to come along
const SLOW_MS = 300; // an answer that takes longer is said to be on its way
const LOST = "The service cannot be reached. It is not running, or the connection was lost.";

const $ = (selector) => document.querySelector(selector);
const percent = (share) => `${(100 * share).toFixed(1)} %`;

const options = $("#options").elements;
const breedFields = [options.target, options.versus];
const editor = new BoxEditor($("#main"), askSoon);
let model = null; // what /model tells
let photo = null; // the file's bytes, so that it may move or change meanwhile
let taken = null; // the file that was chosen last
let likeliest = null; // the photo's likeliest class
let titles = []; // of the classes, as the fields offer them
const indices = new Map(); // of the classes, by the names that the fields offer, as `spelled`
let asking = new AbortController(); // of the request in work: there is one at a time
let pause, slow; // timers

// -- the API key, where the service requires one

/** The key of this tab: it outlives a reload, and no longer than the tab. */
const keys = {
  name: "breedcam-api-key",
  value: null,
  get current() {
    try { return sessionStorage.getItem(this.name); } catch { return this.value; } // no cookies
  },
  set current(key) {
    this.value = key;
    try {
      if (key) sessionStorage.setItem(this.name, key);
      else sessionStorage.removeItem(this.name);
    } catch { /* `value` has it */ }
  },
};

// -- what is asked

/** The JSON of an answer; an Error in words for people where there is none. */
async function ask(address, init = {}) {
  const key = keys.current;
  const headers = { ...init.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const response = await fetch(address, { ...init, headers }).catch((error) => {
    throw error.name === "AbortError" ? error : new Error(LOST);
  });
  if (response.status === 401) throw Object.assign(new Error(), { refused: key, locked: true });
  const type = response.headers.get("Content-Type") ?? "";
  if (!response.ok && !type.startsWith("application/problem+json")) {
    throw new Error(`The service answered ${response.status} ${response.statusText}.`);
  }
  const answer = await response.json().catch((error) => {
    throw error.name === "AbortError" ? error : new Error(LOST);
  });
  if (response.ok) return answer;
  const final = response.status < 500 && response.status !== 429; // the same question, the same answer
  throw Object.assign(new Error(answer.detail), { final });
}

function query() {
  const asked = new URLSearchParams({ top_k: PREDICTIONS });
  for (const field of options) {
    const value = breedFields.includes(field) ? classOf(field) : field.value;
    if (field.name && value !== null && value !== "") asked.set(field.name, value);
  }
  if (editor.box) asked.set("box", editor.box.join());
  return asked;
}

/** Ask about the photo; of several requests only the last one's answer is shown. */
async function askNow() {
  forget();
  if (!$("#options").checkValidity()) {
    busy(false);
    return;
  }
  const { signal } = asking;
  complain(null);
  try {
    const headers = { "Content-Type": "application/octet-stream" };
    const init = { method: "POST", body: photo, headers, signal };
    const answer = await ask(`compare?${query()}`, init);
    const picture = await decoded(answer.overlay);
    if (!signal.aborted) show(answer, picture);
  } catch (error) {
    if (!signal.aborted) complain(error, error.final ? null : askNow);
  }
  if (!signal.aborted) busy(false);
}

function askSoon() {
  if (!$("#options").reportValidity()) return;
  forget();
  pause = setTimeout(askNow, PAUSE_MS);
}

/** Drop what was asked: something else is about to be. */
function forget() {
  clearTimeout(pause);
  asking.abort();
  asking = new AbortController();
  busy(true);
}

async function decoded(overlay) {
  const picture = new Image();
  picture.src = `data:${overlay.media_type};base64,${overlay.data}`;
  await picture.decode();
  return picture;
}

// -- what is shown

function busy(is) {
  $("#main").setAttribute("aria-busy", is);
  clearTimeout(slow);
  if (is) slow = setTimeout(() => { $("#status").textContent = "Working …"; }, SLOW_MS);
}

/** Show an error, with `again` to try once more; null takes the last one away. */
function complain(error, again = null) {
  const notice = $("#problem");
  $("#key").hidden = !error?.locked;
  notice.hidden = !error || error.locked;
  $("#main").classList.toggle("stale", Boolean(error)); // what is shown is not what is asked
  if (error?.locked) requestKey(error.refused);
  if (!error || error.locked) return;
  notice.querySelector("p").textContent = error.message;
  const button = notice.querySelector("button");
  button.textContent = again ? "Try again" : "Close";
  button.onclick = again ?? (() => { notice.hidden = true; });
  $("#status").textContent = "No answer.";
}

/** Ask for a key in place of the one that was refused, if there was one. */
function requestKey(refused) {
  const field = $("#key-field");
  if (keys.current === refused) keys.current = null;
  $("#key-title").textContent = refused
    ? "The service does not accept this API key." : "This service requires an API key.";
  $("#key").onsubmit = (event) => {
    event.preventDefault();
    keys.current = field.value;
    field.value = "";
    $("#key").hidden = true;
    if (!model) meetModel();
    if (photo) askNow();
  };
  $("#status").textContent = "No answer.";
  field.focus();
}

function show(answer, picture) {
  const { image, predictions, confidence, explanations } = answer;
  editor.resize([image.width, image.height]);
  showStage(image);
  $("#confidence").textContent = CONFIDENCE[confidence];
  $("#confidence").classList.toggle("notice", confidence === "low");
  showBreeds(predictions, answer.target);
  likeliest = predictions[0].class_index;
  const { versus } = explanations[0].explanation;
  $("#target").textContent =
    `for ${answer.target.label}${versus ? ` and not ${versus.label}` : ""}`;
  const figures = panels(explanations.length);
  const step = (picture.width - answer.overlay.panel_width) / Math.max(1, figures.length - 1);
  explanations.forEach((each, i) => {
    draw(figures[i], picture, i * step, answer.overlay.panel_width);
    caption(figures[i], each, answer.target);
  });
  $("#status").textContent = summary(answer);
  reveal(true);
}

function reveal(is) {
  for (const part of document.querySelectorAll(".answer")) part.hidden = !is;
}

/** Some browsers leave some photos (WebP with EXIF) on their side: no place to draw a box then. */
function showStage(image) {
  const seen = $(".stage img");
  const lies = (seen.naturalWidth - seen.naturalHeight) * (image.width - image.height) < 0;
  $(".stage").hidden = lies || !seen.naturalWidth;
}

function summary({ target: { label, probability }, explanations, timings_ms: times }) {
  const ious = explanations.map(({ localization }) => localization?.iou.toFixed(2));
  const agreement = ious[0] ? ` IoU with your box: ${ious.join(", ")}.` : "";
  const spent = Object.values(times).reduce((sum, each) => sum + each, 0);
  return `${label}: ${percent(probability)}.${agreement} Answered in ${Math.ceil(spent)} ms.`;
}

/** `count` copies of a template in `parent`; those that are there stay, and keep the focus. */
function copies(parent, template, count) {
  while (parent.children.length > count) parent.lastElementChild.remove();
  while (parent.children.length < count) parent.append($(template).content.cloneNode(true));
  return [...parent.children];
}

const panels = (count) => copies($("#figures"), "#panel", count);

function showBreeds(predictions, explained) {
  copies($("#breeds"), "#row", predictions.length).forEach((row, i) => {
    const { class_index: index, label, probability } = predictions[i];
    row.querySelector(".name").textContent = label;
    row.querySelector(".share").textContent = percent(probability);
    row.querySelector(".bar span").style.width = `${100 * probability}%`;
    const button = row.querySelector("button");
    button.setAttribute("aria-pressed", index === explained.class_index);
    button.onclick = () => choose(index);
  });
}

function draw(figure, picture, left, width) {
  const canvas = figure.querySelector("canvas");
  [canvas.width, canvas.height] = [width, picture.height];
  canvas.getContext("2d").drawImage(
    picture, left, 0, width, picture.height, 0, 0, width, picture.height,
  );
}

function caption(figure, { explanation, localization }, { label }) {
  const { method, layers, rule, threshold, box, status } = explanation;
  const where = layers.length > 1 ? `last ${layers.length} layers` : "last layer";
  const title = `${METHODS[method]}, ${where}`;
  const found = box ? `box ${box.map(Math.round).join(", ")}` : NO_EVIDENCE[status];
  const tell = (selector, text) => { figure.querySelector(selector).textContent = text; };
  tell("h3", title);
  tell(".rule", box ? `rule ${rule}, threshold ${Number(threshold.toFixed(3))}` : found);
  tell(".iou", localization ? localization.iou.toFixed(3) : "–");
  tell(".energy", localization ? percent(localization.energy_in_box) : "–");
  tell(".peak", localization ? (localization.peak_in_box ? "yes" : "no") : "–");
  figure.querySelector("canvas").setAttribute(
    "aria-label", `Photo with the heatmap of ${title}, for ${label}: ${found}`,
  );
}

// -- what a person does

/** Take a photo from wherever it came. */
async function take(file) {
  taken = file;
  forget();
  const bytes = await file.arrayBuffer().catch(() => null);
  if (taken !== file) return; // another one was chosen meanwhile
  if (!bytes) {
    complain(new Error("This file cannot be read. Choose a single photo."));
    busy(false);
    return;
  }
  photo = new Blob([bytes]);
  likeliest = null;
  for (const field of breedFields) field.value = "";
  checkBreeds();
  editor.reset();
  const seen = $(".stage img");
  URL.revokeObjectURL(seen.src);
  seen.src = URL.createObjectURL(photo);
  const visible = await seen.decode().then(() => true, () => false);
  if (taken !== file) return;
  clear(visible, seen);
  askNow();
}

/** Take away what was said of another photo, and hold the places of what will be said of this. */
function clear(visible, { naturalWidth: width, naturalHeight: height }) {
  document.body.classList.add("has-photo");
  $(".stage").hidden = !visible;
  reveal(visible);
  if (!visible) return;
  $(".stage").style.setProperty("--ratio", width / height);
  $("#confidence").textContent = $("#target").textContent = "";
  $("#confidence").classList.remove("notice");
  copies($("#breeds"), "#row", 0);
  copies($("#breeds"), "#row", Math.min(PREDICTIONS, model?.labels.length ?? PREDICTIONS));
  panels(0);
  for (const figure of panels(model?.methods.includes("cam") ?? true ? 3 : 2)) {
    const canvas = figure.querySelector("canvas");
    [canvas.width, canvas.height] = [512, Math.ceil((512 * height) / width)];
  }
}

function choose(index) {
  options.target.value = titles[index];
  if ([index, undefined].includes(classOf(options.versus))) options.versus.value = "";
  checkBreeds();
  askNow();
}

/** Case, hyphens and underscores do not matter, as in the service. */
const spelled = (name) => name.trim().toLowerCase().replace(/[\s_-]+/g, " ");

/** The class that a field names; null where it is empty, undefined where no class has that name. */
const classOf = ({ value }) => (value.trim() ? indices.get(spelled(value)) : null);

function checkBreeds() {
  for (const field of breedFields) {
    field.setCustomValidity(classOf(field) === undefined ? "Not a breed of this model." : "");
  }
  const versus = classOf(options.versus);
  if (versus != null && versus === (classOf(options.target) ?? likeliest)) {
    options.versus.setCustomValidity("Choose another breed: this one is being explained.");
  }
}

function takeFirst(files) {
  if (files.length) take(files[0]);
}

$("#file").addEventListener("change", ({ target: input }) => {
  takeFirst([...input.files]);
  input.value = ""; // so that the same file can be chosen again
});
document.addEventListener("paste", ({ clipboardData }) => takeFirst(clipboardData.files));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", ({ relatedTarget }) => {
  if (!relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  takeFirst(event.dataTransfer.files);
});
$("#options").addEventListener("change", ({ target: field }) => {
  if (!breedFields.includes(field)) askSoon();
});
for (const field of breedFields) {
  // A name is asked for once it is whole, by typing or from the list.
  field.addEventListener("input", () => {
    checkBreeds();
    if (breedFields.every((each) => each.validity.valid)) askSoon();
  });
  field.addEventListener("change", () => field.reportValidity());
  field.addEventListener("focus", () => field.select());
}
$("#options").addEventListener("submit", (event) => event.preventDefault());

// -- the model in service

async function meetModel() {
  complain(null);
  try {
    model = await ask("model");
  } catch (error) {
    complain(error, meetModel);
    return;
  }
  const { name, version, architecture, labels, methods, fused, engine } = model;
  $("#model").textContent = `Model ${name}, version ${version} (${architecture}), served by `
    + `${engine.name} ${engine.version} in ${engine.precision} on ${engine.device}.`;
  $("summary").textContent = `All ${labels.length} breeds`;
  nameBreeds(labels);
  const hasFused = Object.keys(fused ?? {}).length > 0;
  options.rule[0].disabled = !hasFused;
  options.rule.value = hasFused ? "" : "heatmap";
  $("#why-alike").hidden = !methods.includes("cam");
  $("#no-cam").hidden = methods.includes("cam");
  $("#why-fused").hidden = !hasFused;
}

/** Offer the breeds by name, in the order of the alphabet; names that two share, with synset. */
function nameBreeds(labels) {
  const counts = new Map();
  for (const { name } of labels) counts.set(spelled(name), (counts.get(spelled(name)) ?? 0) + 1);
  titles = labels.map(({ name, synset, index }) =>
    counts.get(spelled(name)) > 1 ? `${name} (${synset ?? index})` : name);
  titles.forEach((title, index) => indices.set(spelled(title), index));
  const sorted = [...titles].sort((one, other) => one.localeCompare(other));
  $("#labels").textContent = sorted.join(", ");
  $("#names").replaceChildren(...sorted.map((title) => new Option(title)));
}

/** The documentation can be turned off. */
async function offerDocs() {
  const response = await fetch("docs", { method: "HEAD" }).catch(() => null);
  $("#docs").hidden = response?.status === 404;
}

meetModel();
offerDocs();
