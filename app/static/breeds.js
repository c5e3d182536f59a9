// Breeds as bars: one is explained, perhaps against another; any breed is found by its name.

const SHOWN = 6;
const KIND = "text/x-breed"; // what is dragged from one bar to another

export const percent = (share) =>
  (share > 0 && share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`);

/** Case, hyphens and underscores do not matter, as in the service. */
const spelled = (name) => name.trim().toLowerCase().replace(/[\s_-]+/g, " ");

/** The model's classes by index, and by names as people write them. */
export class Names {
  #indices = new Map();
  #keys;

  /** `labels` are the model's; names that two share are shown with their synset. */
  constructor(labels) {
    const counts = new Map();
    for (const { name } of labels) counts.set(spelled(name), (counts.get(spelled(name)) ?? 0) + 1);
    const shared = ({ name }) => counts.get(spelled(name)) > 1;
    this.#keys = labels.map((label) =>
      (shared(label) ? String(label.synset ?? label.index) : label.name));
    this.titles = labels.map((label, index) =>
      (shared(label) ? `${label.name} (${this.#keys[index]})` : label.name));
    this.titles.forEach((title, index) => this.#indices.set(spelled(title), index));
    this.sorted = [...this.titles].sort((one, other) => one.localeCompare(other));
  }

  /** How the service names a class. */
  key(index) {
    return this.#keys[index];
  }

  /** The class of that name; undefined where there is none. */
  of(name) {
    return this.#indices.get(spelled(name));
  }

  /** The classes with a name that holds this text. */
  matching(text) {
    return this.titles.map((_, index) => index)
      .filter((index) => spelled(this.titles[index]).includes(spelled(text)));
  }
}

/** The list of bars with its search field. */
export class Breeds {
  #list; #search; #template; #choose;
  #names = null;
  #predictions = [];
  #target = null;
  #versus = null;
  #picked = false; // something is: the search ends with its answer

  /** `choose({ target, versus })` is called with what its user wants explained. */
  constructor({ list, search, template, choose }) {
    this.#list = list;
    this.#search = search;
    this.#template = template;
    this.#choose = (chosen) => {
      this.#picked = true;
      choose(chosen);
    };
    search.addEventListener("input", () => this.#fill());
    search.addEventListener("keydown", (event) => this.#key(event));
  }

  set names(names) {
    this.#names = names;
    this.#search.placeholder = `Search ${names.titles.length} breeds`;
    this.#fill();
  }

  /** Hold the places of an answer to come. */
  clear() {
    this.#search.value = "";
    this.show([], null, null);
  }

  /** `predictions` of all classes, most likely first; the class explained; that against or null. */
  show(predictions, target, versus) {
    this.#predictions = predictions;
    [this.#target, this.#versus] = [target, versus];
    if (this.#picked) this.#search.value = "";
    this.#picked = false;
    this.#fill();
  }

  #key(event) {
    if (event.key === "Escape") {
      this.#search.value = "";
      this.#fill();
    } else if (event.key === "Enter") {
      event.preventDefault();
      this.#list.querySelector(".explain:enabled")?.click();
    }
  }

  /** What the list has: what is searched, or the likeliest and the ones that are explained. */
  #rows() {
    const text = this.#search.value.trim();
    if (text && this.#names) {
      const matching = new Set(this.#names.matching(text));
      return this.#predictions.filter(({ class_index: index }) => matching.has(index));
    }
    const others = this.#predictions.slice(SHOWN - 2).filter(({ class_index: index }) =>
      index === this.#target || index === this.#versus);
    const first = this.#predictions.slice(0, SHOWN)
      .filter((prediction) => !others.includes(prediction)).slice(0, SHOWN - others.length);
    return [...first, ...others];
  }

  #fill() {
    const rows = this.#rows();
    const count = rows.length || (this.#search.value.trim() ? 0 : SHOWN);
    const { children } = this.#list;
    while (children.length > count) children[children.length - 1].remove();
    while (children.length < count) this.#list.append(this.#row());
    [...children].forEach((row, i) => this.#write(row, rows[i] ?? null));
    this.#list.classList.toggle("none", !count);
  }

  #row() {
    const row = this.#template.content.cloneNode(true).firstElementChild;
    row.addEventListener("dragstart", ({ dataTransfer }) => {
      dataTransfer.setData(KIND, row.dataset.index);
      dataTransfer.effectAllowed = "link";
    });
    row.addEventListener("dragover", (event) => {
      if (!event.dataTransfer.types.includes(KIND)) return;
      event.preventDefault();
      row.classList.add("over");
    });
    row.addEventListener("dragleave", () => row.classList.remove("over"));
    row.addEventListener("drop", (event) => {
      row.classList.remove("over");
      if (!event.dataTransfer.types.includes(KIND)) return;
      event.preventDefault();
      const target = Number(event.dataTransfer.getData(KIND));
      const versus = Number(row.dataset.index);
      if (target !== versus) this.#choose({ target, versus });
    });
    return row;
  }

  #write(row, prediction) {
    const [explain, versus] = row.querySelectorAll("button");
    const { class_index: index, probability = 0 } = prediction ?? {};
    const label = prediction ? this.#names?.titles[index] ?? prediction.label : "";
    const explained = prediction !== null && index === this.#target;
    const against = prediction !== null && index === this.#versus;
    row.dataset.index = index;
    row.draggable = prediction !== null;
    row.querySelector(".name").textContent = label;
    row.querySelector(".name").title = label;
    row.querySelector(".share").textContent = prediction ? percent(probability) : "";
    row.querySelector(".bar span").style.width = `${100 * probability}%`;
    row.classList.toggle("waiting", !prediction);
    row.classList.toggle("explained", explained);
    row.classList.toggle("against", against);
    explain.disabled = !prediction;
    explain.setAttribute("aria-pressed", explained);
    if (prediction) explain.removeAttribute("aria-label");
    else explain.setAttribute("aria-label", "A breed, once it is known");
    explain.onclick = () => this.#choose({ target: index, versus: against ? null : this.#versus });
    versus.disabled = !prediction || explained;
    versus.setAttribute("aria-pressed", against);
    versus.setAttribute("aria-label", `Explain versus ${label || "this breed"}`);
    versus.onclick = () => this.#choose({ target: this.#target, versus: against ? null : index });
  }
}
