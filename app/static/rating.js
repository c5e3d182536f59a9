// Rating: which of two heatmaps explains better, in the eyes of people who do not know whose they are.
import { key, patiently } from "./api.js";
import { specTitle } from "./evidence.js";
import { Message } from "./messages.js";
import { name as remember, namedIn } from "./rated.js";
import { DEFAULTS } from "./settings.js";
import { fit, paint } from "./stage.js";
import { SOON, Watch } from "./watch.js";

const LEAST = 0.03; // mean difference of two heatmaps, values 0..1, that people can see
const LONGEST = 1200; // pixels of a canvas's longer side
const RATER = "breedcam-rater";
const NOT_YET = "Your answer is not stored yet.";

let drawn = null; // the id, where nothing can be kept

/** The random id of this browser: 32 hexadecimal digits. */
function rater() {
  let id = drawn;
  try { id = localStorage.getItem(RATER) ?? drawn; } catch { /* no cookies */ }
  if (!/^[0-9a-f]{32}$/.test(id ?? "")) id = hex(crypto.getRandomValues(new Uint8Array(16)));
  drawn = id;
  try { localStorage.setItem(RATER, id); } catch { /* `drawn` has it */ }
  return id;
}

const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** SHA-256 of a photo's file, whatever was sent of it. Browsers compute it on HTTPS and localhost only. */
const digestOf = async (blob) =>
  hex(new Uint8Array(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer())));

/** All pairs of methods whose heatmaps people can tell apart, in random order, and shuffled within. */
function pairsOf(maps) {
  const specs = shuffled([...maps.keys()].filter((spec) => maps.get(spec)));
  const pairs = specs.flatMap((first, i) => specs.slice(i + 1).map((second) => [first, second]));
  return shuffled(pairs.filter((pair) => difference(...pair.map((spec) => maps.get(spec))) >= LEAST)
    .map(shuffled));
}

/** Those of the pairs of which no method has been named yet. */
const blind = (pairs, named) => pairs.filter((pair) => !pair.some((spec) => named.has(spec)));

function difference({ values: first }, { values: second }) {
  return first.reduce((sum, value, i) => sum + Math.abs(value - second[i]), 0) / first.length;
}

/** Fisher and Yates. */
function shuffled(items) {
  const mixed = [...items];
  for (let i = mixed.length - 1; i > 0; i -= 1) {
    const j = Math.floor(Math.random() * (i + 1));
    [mixed[i], mixed[j]] = [mixed[j], mixed[i]];
  }
  return mixed;
}

/** The view, and the button that opens it. No method is named in it before the answer is stored. */
export class Rating {
  #view; #button; #message;
  #narrow = matchMedia("(max-width: 44rem)"); // as in rating.css: one above the other
  #offered = null; // what could be rated: {photo, answer, specs, model}
  // What is in the view: that, with `digest`, `maps`, `pairs`, the `pair`, and the methods `named`
  // by answers to this photo, which are no secret any more.
  #now = null;
  #watch = new Watch();
  #peeked = false; // whether the view was closed without an answer

  constructor(view, button) {
    [this.#view, this.#button] = [view, button];
    this.#message = new Message(this.#part(".message"));
    button.addEventListener("click", () => this.#open());
    view.addEventListener("click", ({ target }) => {
      const { answer, act } = target.closest("button")?.dataset ?? {};
      if (answer && !this.#now.sending) this.#send(answer);
      if (act === "next") this.#next();
      if (act === "close") view.close();
    });
    view.addEventListener("close", () => {
      const waiting = this.#now?.sending || this.#message.shown || !this.#part("form").hidden;
      this.#peeked = view.dataset.state === "asking" && !waiting;
    });
    this.#part("form").addEventListener("submit", (event) => this.#takeKey(event));
    this.#narrow.addEventListener("change", () => this.#name());
  }

  /** Let people rate the answer on the stage, if it is the evidence for the likeliest breed. */
  offer(photo, answer, specs, model) {
    if (this.#offered?.answer !== answer) this.#offered = { photo, answer, specs, model };
    this.#button.hidden = Boolean(answer.versus)
      || answer.target.class_index !== answer.predictions[0].class_index;
  }

  /** The photo goes: there is nothing to rate until the next answer. */
  withdraw() {
    this.#watch.stop();
    this.#view.close();
    this.#button.hidden = true;
    this.#offered = this.#now = null;
  }

  #part(selector) {
    return this.#view.querySelector(selector);
  }

  /** Where it was left, if an answer waits to be stored; else another pair. */
  async #open() {
    const offered = this.#offered;
    const { photo, answer, specs, model } = offered;
    const digest = crypto.subtle ? await digestOf(photo.file) : null;
    if (this.#offered !== offered || this.#view.open) return;
    this.#view.showModal();
    if (this.#now?.answer === answer) {
      if (this.#peeked) this.#next(); // outside of the view, its heatmaps have names
      return;
    }
    const size = [photo.width, photo.height];
    const maps = new Map(specs.map((spec) => [spec, answer.panel(spec, DEFAULTS, size).map]));
    const id = `${model.name}/${model.version}/${digest}`;
    const named = namedIn(id);
    const pairs = blind(pairsOf(maps), named);
    this.#now = { ...offered, digest, id, maps, named, pairs, pair: null, sending: false };
    this.#next();
  }

  #next() {
    this.#busy(false);
    const { photo, answer, maps, pairs } = this.#now;
    this.#message.clear();
    this.#part("form").hidden = true;
    const pair = pairs.pop() ?? null;
    this.#now.pair = this.#now.digest ? pair : null;
    if (!this.#now.pair) {
      this.#turn("none");
      this.#part(".said").textContent = this.#noPair();
      return;
    }
    this.#turn("asking");
    this.#part(".breed").textContent = answer.target.label;
    this.#view.style.setProperty("--ratio", photo.width / photo.height);
    this.#view.querySelectorAll("canvas").forEach((canvas, i) => {
      fit(canvas, photo, LONGEST);
      paint(canvas, photo, maps.get(pair[i]), DEFAULTS);
    });
    for (const box of this.#view.querySelectorAll("[type=checkbox]")) box.checked = false;
    this.#name();
  }

  #noPair() {
    if (!this.#now.digest) {
      return "Rating requires HTTPS or localhost. Elsewhere, this browser computes no digest of the photo.";
    }
    return this.#now.named.size ? "There is no other pair of this photo. Choose another photo to rate more."
      : "The heatmaps of this photo look alike. There is no pair to rate.";
  }

  /** Show the parts of a state, and put the focus where it begins. */
  #turn(state) {
    this.#view.dataset.state = state;
    this.#part(".said").textContent = "";
    for (const part of this.#view.querySelectorAll("[data-in]")) {
      part.hidden = !part.dataset.in.split(" ").includes(state);
    }
    this.#part("[data-act=next]").hidden = !this.#now.pairs.length || state !== "thanks";
    const start = { asking: "h2", thanks: "[data-act=next]:not([hidden])" }[state];
    (start && this.#part(start) || this.#part(".after [data-act=close]")).focus();
  }

  /** Name the two by where they are; by their methods once these are no secret. */
  #name() {
    const { pair, answer } = this.#now ?? {};
    if (!pair) return;
    const known = this.#view.dataset.state === "thanks";
    const places = this.#narrow.matches ? ["Upper", "Lower"] : ["Left", "Right"];
    this.#view.querySelectorAll("figure").forEach((figure, i) => {
      figure.querySelector("canvas").setAttribute("aria-label", `${places[i]} heatmap`);
      figure.querySelector(".place").textContent = places[i];
      figure.querySelector(".method").textContent = known ? specTitle(pair[i]) : "";
    });
    ["first", "second"].forEach((each, i) => {
      const button = this.#part(`[data-answer=${each}]`);
      button.querySelector(".place").textContent = places[i];
      button.querySelector(".label").textContent = answer.target.label;
    });
  }

  async #send(chosen) {
    const now = this.#now;
    const { digest, pair, model: { name, version } } = now;
    const boxes = [...this.#view.querySelectorAll("[type=checkbox]")];
    const misses = pair.filter((_, i) => boxes[i].checked);
    this.#message.clear();
    this.#part("form").hidden = true;
    this.#watch.stop();
    this.#busy(true);
    let failure = null;
    try {
      const rating = { digest, methods: pair, answer: chosen, misses, rater: rater(), model: { name, version } };
      await patiently("ratings", { body: JSON.stringify(rating), type: "application/json",
        waiting: (refusal, seconds) => this.#wait(now, seconds) });
    } catch (error) {
      failure = error;
    }
    if (!failure) now.named = remember(now.id, pair);
    now.pairs = blind(now.pairs, now.named);
    if (this.#now !== now) return; // another photo came: the answer to this one is stored, or was given up
    this.#busy(false);
    if (failure) this.#fail(failure, chosen);
    else this.#thank();
  }

  #busy(is) {
    this.#now.sending = is;
    this.#part(".answers").setAttribute("aria-busy", is);
    for (const box of this.#view.querySelectorAll("[type=checkbox]")) box.disabled = is;
    this.#part(".said").textContent = is ? "Storing your answer …" : "";
  }

  #wait(now, seconds) {
    if (this.#now !== now) return;
    this.#message.work(`The service is busy. ${NOT_YET}`, { rest: `Trying again in ${seconds} s.` });
  }

  #thank() {
    this.#watch.reset();
    this.#message.clear();
    this.#turn("thanks");
    this.#name();
    const [first, second] = [...this.#view.querySelectorAll("figure")].map((figure) =>
      [".place", ".method"].map((part) => figure.querySelector(part).textContent).join(": "));
    this.#part(".said").textContent = `Thank you. ${first}. ${second}.`;
  }

  #fail(error, chosen) {
    if (error.locked) {
      this.#message.clear();
      this.#now.chosen = chosen;
      if (key.value === error.key) key.value = null;
      this.#part("label[for=rating-key]").textContent =
        `${error.key ? "The service does not accept this API key." : "The service requires an API key."} ${NOT_YET}`;
      this.#part("form").hidden = false;
      this.#part("#rating-key").focus();
      return;
    }
    const soon = error.lost && this.#watch.start(() => this.#send(chosen)) ? ` ${SOON}` : "";
    this.#message.say(`${inWords(error)} ${NOT_YET}${soon}`, { error: true, again: () => {
      this.#watch.reset();
      this.#send(chosen);
    } });
    this.#part(".message button").focus();
  }

  #takeKey(event) {
    event.preventDefault();
    const field = this.#part("#rating-key");
    key.value = field.value;
    field.value = "";
    this.#part("h2").focus();
    this.#send(this.#now.chosen);
  }
}

/** What is in the way, and what to do. */
function inWords({ status, busy, message }) {
  if (status === 507) return "The service has no space left for ratings. Try again once its operator has made some.";
  if (busy) return "The service is still busy. Try again in a minute.";
  return status === undefined ? "This answer cannot be sent." : message;
}
