// The page: one photo, one upload for each class that is explained, all else worked out here.
import { hasDocs, key, patiently, Refusal } from "./api.js";
import { BoxEditor, place } from "./box.js";
import { Breeds, Names, percent } from "./breeds.js";
import { COLORMAPS } from "./colormaps.js";
import { Divider } from "./divider.js";
import { agreement, Answer, calibrated, fusedOf, methodTitle, NO_EVIDENCE, specsOf, specTitle }
  from "./evidence.js";
import { element, Message } from "./messages.js";
import { read } from "./photo.js";
import { Rating } from "./rating.js";
import * as samples from "./samples.js";
import * as setting from "./settings.js";
import { curl, httpx, picture, save } from "./share.js";
import { fit, paint, paintScale } from "./stage.js";
import { listen } from "./upload.js";
import { SOON, Watch } from "./watch.js";

const CONFIDENCE = {
  ok: ["Normal confidence", "The photo is like those the model was trained on."],
  low: ["Low confidence", "The photo is unlike those the model was trained on, or no breed stands out."],
  null: ["", ""],
};
const ALL = 1000; // breeds: more than a model has
const LONGEST = 1600; // pixels of a canvas's longer side
const PICTURE = 1024; // pixels of a photo that the service decodes in the browser's place
const SLOW_MS = 300; // an answer that takes longer is said to be on its way
const LATE_MS = 1000; // and to everyone, in words

const $ = (selector) => document.querySelector(selector);
const body = document.body;

let settings = { ...setting.DEFAULTS };
let model = null; // what /model answers
let meeting = false; // whether it is awaited
let specs = []; // methods with their layers
let names = null; // of the classes
let photo = null;
let latest = 0; // number of the photo that came last: a slow one may not overtake it
let previous = null; // {photo, target, versus, box}: what the photo replaces, until its first answer
let shown = null; // the answer on the stage
let panels = []; // of the stage: one, or two to compare
let asking = new AbortController(); // of the request in work: there is one at a time
let unlock = () => {}; // what waits for a key
let slow; // timer

const watch = new Watch();
const atPhoto = new Message($("#at-photo"));
const atBreeds = new Message($("#at-breeds"));
const [firstView, secondView] = document.querySelectorAll(".view");
const surfaces = [firstView, secondView].map((view) => view.querySelector(".photo"));
const editor = new BoxEditor(surfaces, $("#edges"), (box) => {
  settings.box = box;
  if (box) draw(false);
  refresh();
});
const rating = new Rating($("#rating"), $("#rate"));
const divider = new Divider($("#divider"), () => refresh());
const breeds = new Breeds({ list: $("#breeds"), search: $("#search"), template: $("#row"),
  choose: (chosen) => explain(chosen) });

// -- what is asked

const asked = ({ target, versus }) => `${target ?? ""}/${versus ?? ""}`;

function query({ target, versus }, decoded) {
  const fields = new URLSearchParams({ top_k: ALL, overlay: false, heatmap: true });
  for (const spec of specs) fields.append("method", spec);
  if (target !== null) fields.set("target", target);
  if (versus !== null) fields.set("versus", versus);
  if (decoded) {
    fields.set("photo", true);
    fields.set("size", PICTURE);
  }
  return fields;
}

/**
 * Show what is chosen: at once where it was asked before, else after one upload.
 * Resolves to whether it is shown.
 */
async function ask(message = atPhoto) {
  asking.abort();
  asking = new AbortController();
  watch.stop();
  const { signal } = asking;
  const wanted = { target: settings.target, versus: settings.versus };
  atPhoto.clear();
  atBreeds.clear();
  const known = photo?.answers.get(asked(wanted));
  busy(!known && Boolean(photo && model));
  if (known) show(known, message);
  if (photo && !model && !meeting) meetModel();
  if (known || !photo || !model) return Boolean(known);
  const limit = model.limits?.upload_bytes;
  const late = setTimeout(() => {
    if (!message.shown) message.work("Explaining the photo …");
  }, LATE_MS);
  try {
    if (limit && photo.body.size > limit) {
      throw new Refusal(`This file has ${megabytes(photo.body.size)}. The service takes up to `
        + `${megabytes(limit)}. Choose a smaller one.`, { status: 413 });
    }
    const answer = await upload(wanted, message, signal);
    watch.reset();
    message.clear();
    show(answer, message);
    return true;
  } catch (error) {
    if (!signal.aborted) miss(error, message);
    return false;
  } finally {
    clearTimeout(late);
  }
}

/** There is no answer: say so, and go back to the photo before where this one cannot be shown. */
function miss(error, message) {
  busy(false);
  const refused = photo;
  if (previous && (!photo.bitmap || (error.final && !error.locked))) {
    goBack();
    fail(error, message, () => use(refused));
    return;
  }
  if (!photo.bitmap) leave();
  body.classList.add("stale"); // what is shown is not what is asked
  fail(error, message, () => ask(message));
}

/** One answer; a second request only where this browser cannot show the photo as it is. */
async function upload(wanted, message, signal) {
  const send = (decoded) => patiently(`compare?${query(wanted, decoded)}`, {
    body: photo.body, signal, waiting: waits(message), progress: advances(message, signal),
  });
  let answer = await send(!photo.bitmap);
  if (!answer.photo && photo.differs(answer.image)) answer = await send(true);
  if (answer.model.name !== model.name || answer.model.version !== model.version) {
    await meetAnother();
    throw new DOMException("Asked anew", "AbortError");
  }
  if (answer.photo) {
    await photo.take(answer.photo, answer.image);
    if (signal.aborted) throw new DOMException("Aborted", "AbortError");
    appear();
  }
  const found = new Answer(model, specs, answer);
  photo.answers.set(asked(wanted), found);
  if (wanted.target === null) photo.answers.set(asked({ ...wanted, target: found.target.class_index }), found);
  return found;
}

const megabytes = (bytes) => `${Number((bytes / 1e6).toFixed(bytes < 9.95e6 ? 1 : 0))} MB`;

const waits = (message) => ({ starting }, seconds) => message.work(
  starting ? "The service is starting." : "The service is busy.",
  { rest: `Trying again in ${seconds} s.` });

function advances(message, signal) {
  const begun = performance.now();
  return (share) => {
    if (signal.aborted || performance.now() - begun < SLOW_MS) return;
    if (share >= 1) message.work("The photo has arrived. Explaining it …");
    else message.work("Sending the photo …", { share });
  };
}

function fail(error, message, again) {
  if (error.locked) {
    message.clear();
    unlock = again;
    requestKey(error.key);
    return;
  }
  const text = error instanceof Refusal ? inWords(error) : "This answer cannot be shown.";
  const soon = error.lost && watch.start(again) ? ` ${SOON}` : "";
  message.say(text + soon, { error: true, again: error.final ? null : () => {
    watch.reset();
    again();
  } });
  $("#status").textContent = ""; // what is heard is the message
}

/** The refusal, with what to do. The service's own words say what is wrong. */
function inWords({ status, message, busy: full, starting }) {
  if (status === 415 || status === 422) return `This is not a photo that can be read. ${message}`;
  if (starting) return "The service is still starting. Try again in a minute.";
  if (full) return "The service is still busy. Try again in a minute.";
  return message;
}

/** Ask for a key in place of the one that was refused, if there was one. */
function requestKey(refused) {
  const field = $("#key-field");
  if (key.value === refused) key.value = null;
  $("#key-title").textContent = refused
    ? "The service does not accept this API key." : "This service requires an API key.";
  $("#key").hidden = false;
  field.focus();
}

$("#key").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = $("#key-field");
  key.value = field.value;
  field.value = "";
  $("#key").hidden = true;
  $(".explanation").focus({ preventScroll: true });
  unlock();
});

function busy(is) {
  $("#main").setAttribute("aria-busy", is);
  body.classList.toggle("busy", is);
  clearTimeout(slow);
  $("#status").textContent = "";
  if (is) slow = setTimeout(() => { $("#status").textContent = "Working …"; }, SLOW_MS);
}

// -- what is chosen

/** Take settings that need no answer of the service. */
function change(chosen) {
  Object.assign(settings, chosen);
  refresh();
}

/** Explain a class, perhaps against another. */
function explain({ target, versus }) {
  settings.target = target ?? shown?.target.class_index ?? null;
  settings.versus = versus;
  ask(atBreeds);
}

/** Scroll to the picture that has changed, where less than half of it is in sight. */
function reveal() {
  const { top, bottom, height } = $("#stage").getBoundingClientRect();
  const seen = Math.min(bottom, innerHeight) - Math.max(top, 0);
  if (seen >= height / 2) return;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  $("#stage").scrollIntoView({ block: "nearest", behavior: still ? "auto" : "smooth" });
}

const spec = () => `${settings.method}/${settings.layers}`;

/** The specs on the stage. */
const compared = () => (settings.compare === "off" ? [spec()] : [spec(), settings.second]);

function draw(is) {
  editor.drawing = is;
  $("#drawing").setAttribute("aria-pressed", is);
  $("#drawing").textContent = is ? "Drawing: drag over the dog" : "Draw a box";
  $("#stage").classList.toggle("drawing", is);
}

// -- what is shown

function show(answer, message) {
  shown = answer;
  forget();
  if (model.ratings) rating.offer(photo, answer, specs, model);
  body.classList.remove("stale");
  const [word, reason] = CONFIDENCE[answer.confidence];
  $("#confidence").textContent = word;
  $("#confidence").title = reason;
  $("#confidence").className = `badge ${answer.confidence ?? ""}`;
  breeds.show(answer.predictions, answer.target.class_index, answer.versus?.class_index ?? null);
  explained(answer);
  busy(false);
  refresh();
  const { label, probability } = answer.target;
  $("#verdict").replaceChildren(
    element("b", { textContent: label }), ` ${percent(probability).replaceAll(" ", "\u00a0")} `,
    element("span", answer.confidence === "low" ? { className: "badge low", textContent: word } : {}),
    element("span", { className: "ious" }));
  $("#status").textContent = `${label}: ${percent(probability)}. ${word}.`;
  if (message === atBreeds) reveal(); // its user looks at the list
}

function explained({ target, versus, confidence }) {
  const line = $("#explained");
  if (!versus) {
    line.textContent = confidence === "low" ? CONFIDENCE.low[1]
      : `The heatmap shows the evidence for ${target.label}.`;
    return;
  }
  const close = element("button", { type: "button", className: "close", textContent: "Clear" });
  close.setAttribute("aria-label", `Explain ${target.label} alone`);
  close.addEventListener("click", () => {
    line.focus();
    explain({ target: target.class_index, versus: null });
  });
  line.replaceChildren(`${target.label} versus ${versus.label} `, close);
}

let frame = 0;

/** Draw the stage at the next frame: a slider may move several times before it. */
function refresh() {
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    if (model) showControls();
    if (photo?.bitmap) showStage();
  });
}

function showStage() {
  const size = [photo.width, photo.height];
  panels = shown ? compared().map((each) => shown.panel(each, settings, size)) : [];
  $("#stage").dataset.compare = settings.compare;
  const split = settings.compare === "split" ? { from: 0, to: divider.share } : {};
  showView(firstView, panels[0], split);
  const [, other] = panels;
  if (settings.compare === "split" && other) {
    paint(firstView.querySelector("canvas"), photo, other.map, settings, { from: divider.share });
  }
  mark(firstView.querySelector(".other"), settings.compare === "split" ? other : null);
  firstView.querySelector(".right").textContent = panels.length ? specTitle(settings.second) : "";
  if (settings.compare === "side") showView(secondView, other, {});
  showFigures(size);
}

/** A view with its heatmap, found box and peak; without a panel the photo alone. */
function showView(view, panel, part) {
  const canvas = view.querySelector("canvas");
  fit(canvas, photo, LONGEST);
  paint(canvas, photo, panel?.map ?? null, settings, part);
  canvas.setAttribute("aria-label", panel ? described(panel) : "Your photo");
  mark(view.querySelector(".found"), panel);
  view.querySelector(".left").textContent = panel ? specTitle(panel.spec) : "";
  const ring = view.querySelector(".peak");
  ring.hidden = !panel?.peak || settings.compare === "split";
  if (!ring.hidden) {
    ring.style.left = `${(100 * panel.peak[0]) / photo.width}%`;
    ring.style.top = `${(100 * panel.peak[1]) / photo.height}%`;
  }
}

function mark(element, panel) {
  place(element, panel?.box ?? null, [photo.width, photo.height]);
}

function described({ spec: which, status, box }) {
  const found = box ? `box ${box.map(Math.round).join(", ")}` : NO_EVIDENCE[status];
  return `Photo with the heatmap of ${specTitle(which)}, for ${shown.target.label}: ${found}`;
}

function showFigures(size) {
  const own = settings.box;
  const ious = []; // beside the photo too, where the table is out of sight
  $("#figures").querySelectorAll("tbody tr").forEach((row, i) => {
    const panel = panels[i];
    row.hidden = i > 0 && settings.compare === "off";
    const figures = panel && own ? agreement(panel, own, size) : null;
    const tell = (selector, text) => { row.querySelector(selector).textContent = text; };
    tell("th", i > 0 ? specTitle(settings.second) : specTitle(spec()));
    tell(".iou", figures ? figures.iou.toFixed(3) : "–");
    if (figures) ious.push(figures.iou.toFixed(3));
    tell(".energy", figures ? percent(figures.energy) : "–");
    tell(".peaks", figures ? (figures.peak ? "yes" : "no") : "–");
  });
  $("#verdict .ious")?.replaceChildren(ious.length ? ` · IoU ${ious.join(" and ")}` : "");
  $("#hint").textContent = hint(own);
}

function hint(own) {
  const without = panels.find(({ box }) => !box);
  if (without) return `${specTitle(without.spec)} has no box: ${NO_EVIDENCE[without.status]}.`;
  if (panels.length && !own) return "Draw a box around the dog to see how well the green box agrees with it.";
  return "\u00a0";
}

function showControls() {
  for (const tab of $("#methods").children) {
    const chosen = tab.dataset.method === settings.method;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
    if (chosen) $("#views").setAttribute("aria-labelledby", tab.id);
  }
  for (const input of document.querySelectorAll("[name=layers]")) {
    input.checked = input.value === settings.layers;
    input.disabled = !specs.includes(`${settings.method}/${input.value}`);
  }
  for (const input of document.querySelectorAll("[name=compare]")) {
    input.checked = input.value === settings.compare;
  }
  $("#second").value = settings.second;
  $("#second").disabled = settings.compare === "off";
  $("#opacity").value = settings.opacity;
  $("#opacity-value").textContent = `${Math.round(100 * settings.opacity)} %`;
  showThreshold();
  $("#for-both").hidden = settings.compare === "off";
  const fused = compared().some((each) => fusedOf(model, each));
  $("#rule").value = fused ? settings.rule : "heatmap";
  $("#rule").disabled = !fused;
  showColormap();
}

function showColormap() {
  const scale = $("#scale");
  if (scale.dataset.colormap === settings.colormap) return;
  scale.dataset.colormap = $("#colormap").value = settings.colormap;
  paintScale(scale, settings.colormap);
}

function showThreshold() {
  const { threshold, rule } = settings;
  const usual = compared().map((each) => calibrated(model, each, rule));
  const { min, max } = $("#threshold");
  $("#threshold").value = threshold ?? usual[0];
  const values = (threshold === null ? usual : [threshold]).map((value) => value.toFixed(2));
  $("#threshold-value").textContent = [...new Set(values)].join(" / ");
  document.querySelectorAll(".calibrated").forEach((mark, i) => {
    mark.hidden = i >= usual.length;
    if (!mark.hidden) mark.style.setProperty("--at", (usual[i] - min) / (max - min));
  });
  $("#reset").hidden = threshold === null;
}

// -- photos

/** Take a photo from wherever it came; `remark` is said above it. */
async function take(file, remark = null) {
  latest += 1;
  const number = latest;
  atBreeds.clear();
  atPhoto.clear();
  busy(true);
  const next = await read(file).catch(() => null);
  if (number !== latest) { // another one was chosen meanwhile
    next?.bitmap?.close?.();
    return;
  }
  if (!next) {
    busy(false);
    atPhoto.say("This file cannot be read. Choose the file of a single photo.", { error: true });
    return;
  }
  watch.reset();
  if (await use(next) && remark && number === latest) atPhoto.say(remark);
}

/**
 * Put a photo in the place of the one before, which is kept until there is an answer. What this
 * browser cannot show comes to the stage once the service has decoded it.
 */
function use(next) {
  if (photo?.bitmap) {
    forget();
    const { target, versus, box } = settings;
    previous = { photo, target, versus, box };
  }
  photo = next;
  [shown, panels] = [null, []];
  rating.withdraw();
  if (previous) Object.assign(settings, setting.OF_A_PHOTO); // a link's are for the first photo
  draw(false);
  if (photo.bitmap) {
    appear();
  } else {
    editor.reset();
    body.classList.add("stale");
  }
  return ask();
}

/** Go back to the photo before, and to what was chosen there. */
function goBack() {
  photo.bitmap?.close?.();
  ({ photo } = previous);
  const { target, versus, box } = previous;
  previous = null;
  Object.assign(settings, { target, versus, box });
  appear();
  ask(atBreeds);
}

function forget() {
  previous?.photo.bitmap.close?.();
  previous = null;
}

/** Show the photo, and hold the places of what will be said of it. */
function appear() {
  body.classList.add("has-photo");
  $("#another").hidden = false;
  $("#stage").style.setProperty("--ratio", photo.width / photo.height);
  if (!shown) unsay();
  fitBox();
  refresh();
}

/** Put the chosen box on the photo, as far as it lies within. */
function fitBox() {
  editor.reset([photo.width, photo.height], settings.box);
  settings.box = editor.box;
}

/** Nothing is known of the photo yet. */
function unsay() {
  $("#explained").textContent = $("#verdict").textContent = "\u00a0";
  $("#confidence").textContent = "";
  $("#confidence").className = "badge";
  breeds.clear();
}

/** Back to the start, where there is nothing to show. */
function leave() {
  body.classList.remove("has-photo");
  $("#another").hidden = true;
}

listen({ input: $("#file"), target: body, take, complain: (text) => atPhoto.say(text, { error: true }),
  occupied: () => body.classList.contains("has-photo") });
$("#another").addEventListener("click", () => $("#file").click());

function offerSamples() {
  for (const sample of samples.SAMPLES) {
    const button = element("button", { type: "button" });
    const canvas = element("canvas", { width: 240, height: 180 });
    button.append(canvas, element("span", { textContent: sample.name }));
    button.addEventListener("click", async () => take(await samples.file(sample)));
    $("#samples").append(button);
    (window.requestIdleCallback ?? setTimeout)(() => samples.draw(canvas, sample));
  }
}

// -- controls

/** Along a list of tabs, as its pattern has it. */
$("#methods").addEventListener("keydown", (event) => {
  const tabs = [...$("#methods").children];
  const at = tabs.indexOf(document.activeElement);
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: tabs.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  const tab = tabs[(to + tabs.length) % tabs.length];
  tab.focus();
  tab.click();
});

function offerMethods() {
  const tabs = model.methods.map((method) => {
    const tab = element("button", { type: "button", id: `method-${method}`, textContent: methodTitle(method) });
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", "views");
    tab.dataset.method = method;
    tab.addEventListener("click", () => {
      const layers = specs.includes(`${method}/${settings.layers}`) ? settings.layers : "last";
      change({ method, layers });
    });
    return tab;
  });
  $("#methods").replaceChildren(...tabs);
  $("#second").replaceChildren(...specs.map((each) => new Option(specTitle(each), each)));
  $("#layers").hidden = specs.every((each) => each.endsWith("/last"));
}

const on = (selector, event, act) => $(selector).addEventListener(event, act);
on("#layers", "change", ({ target }) => change({ layers: target.value }));
on("#compare", "change", ({ target }) => change({ compare: target.value }));
on("#second", "change", ({ target }) => change({ second: target.value }));
on("#opacity", "input", ({ target }) => change({ opacity: Number(target.value) }));
on("#threshold", "input", ({ target }) => change({ threshold: Number(target.value) }));
on("#reset", "click", () => {
  change({ threshold: null });
  $("#threshold").focus();
});
on("#colormap", "change", ({ target }) => change({ colormap: target.value }));
on("#rule", "change", ({ target }) => change({ rule: target.value, threshold: null }));
on("#drawing", "click", () => draw(!editor.drawing));
document.addEventListener("keydown", ({ key: pressed }) => {
  if (pressed === "Escape") draw(false);
});

// -- what can be taken along

on("#download", "click", async () => {
  if (!panels.length) return;
  const blob = await picture(photo, panels, { settings, divider: divider.share }).catch(() => null);
  if (!blob) {
    $("#copied").textContent = "This browser cannot make a picture of that size.";
    return;
  }
  const parts = [photo.name.replace(/\.[^.]*$/, ""), ...compared().map((each) => each.replace("/", "-"))];
  save(blob, `${parts.join("-")}.png`);
});

/** What the command asks for: names in place of numbers; the rule only where each method has it. */
function question() {
  const named = (index) => (index === null ? null : names.key(index));
  const has = settings.rule === "heatmap" || compared().every((each) => fusedOf(model, each));
  return [
    { ...settings, target: named(settings.target), versus: named(settings.versus),
      rule: has ? settings.rule : null },
    { base: document.baseURI, file: photo.name, locked: Boolean(key.value) },
  ];
}

async function copy(text, word) {
  try {
    await navigator.clipboard.writeText(text);
    $("#copied").textContent = `${word} copied.`;
  } catch {
    $("#copied").textContent = "This browser did not allow copying. Here it is to copy by hand:";
    const field = element("textarea", { readOnly: true, value: text });
    field.setAttribute("aria-label", word);
    $("#copied").append(field);
    field.select();
  }
}

const both = () => (settings.compare === "off" ? "" : " for both methods");
on("#copy-curl", "click", () => copy(curl(...question()), `Command${both()}`));
on("#copy-python", "click", () => copy(httpx(...question()), `Program${both()}`));
on("#copy-link", "click", () => {
  const address = new URL(document.baseURI);
  address.hash = setting.toFragment(settings, (index) => names.key(index));
  copy(address.href, "Link (without the photo)");
});

function restore() {
  const { box } = settings; // drawn while the service was starting
  settings = setting.fromFragment(location.hash, { specs, colormaps: Object.keys(COLORMAPS),
    classOf: (name) => names.of(name) ?? model.labels.find(({ synset, index }) =>
      synset === name || String(index) === name)?.index });
  settings.box ??= box;
  if (!specs.includes(spec())) [settings.method, settings.layers] = specs[0].split("/");
  if (!specs.includes(settings.second)) settings.second = specs[specs.length - 1];
}

/** Show what the link says; without a photo, in words. */
function follow() {
  restore();
  const words = setting.inWords(settings, (index) => names.titles[index], specTitle);
  $("#linked").hidden = !words.length;
  $("#linked").textContent = `Your link sets: ${words.join(" · ")}. This applies to the photo that you choose.`;
  if (photo?.bitmap) fitBox();
  refresh();
  ask();
}

window.addEventListener("hashchange", () => {
  if (model) follow();
});

// -- the model in service

async function meetModel() {
  meeting = true;
  watch.stop();
  try {
    model = await patiently("model", { waiting: waits(atPhoto) });
  } catch (error) {
    fail(error, atPhoto, meetModel);
    return;
  } finally {
    meeting = false;
  }
  watch.reset();
  atPhoto.clear();
  const { name, version, architecture, labels, methods, fused, engine, limits } = model;
  $("#model").textContent = `Model ${name}, version ${version} (${architecture}), served by `
    + `${engine.name} ${engine.version} in ${engine.precision} on ${engine.device}.`;
  if (limits) $("#limit").textContent = `, up to ${megabytes(limits.upload_bytes)}`;
  specs = specsOf(model);
  names = new Names(labels);
  breeds.names = names;
  $("#labels-title").textContent = `All ${labels.length} breeds`;
  $("#labels").textContent = names.sorted.join(", ");
  $("#why-alike").hidden = !methods.includes("cam");
  $("#no-cam").hidden = methods.includes("cam");
  $("#why-fused").hidden = Object.keys(fused ?? {}).length === 0;
  offerMethods();
  follow();
}

/** Another version serves since: its classes and thresholds differ. What is chosen stays. */
async function meetAnother() {
  photo.answers.clear();
  history.replaceState(null, "", `#${setting.toFragment(settings, (index) => names.key(index))}`);
  await meetModel();
}

$("#colormap").replaceChildren(...Object.keys(COLORMAPS).map((each) => new Option(each)));
breeds.clear();
offerSamples();
meetModel();
hasDocs().then((are) => { $("#docs").hidden = !are; });
