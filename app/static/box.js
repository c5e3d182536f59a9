// The box on a photo, in the photo's pixels: drawn, moved and resized by pointer, keys or numbers.

const LEAST_DRAG = 4; // CSS pixels: less is a tap

const between = (least, value, most) => Math.min(Math.max(value, least), most);

/** The box with two points as opposite corners. */
const spanned = ([x, y], [u, v]) => [
  Math.min(x, u), Math.min(y, v), Math.max(x, u), Math.max(y, v),
];

export class BoxEditor {
  #stage; #frame; #fields; #fieldset; #changed;
  #size = null; // [width, height] of the photo, pixels; null: not known yet
  #box = null; // [xmin, ymin, xmax, ymax]

  /** `root` holds `.stage`, `.frame` and `.edges`; `changed` is called when the box is another. */
  constructor(root, changed) {
    this.#changed = changed;
    this.#stage = root.querySelector(".stage");
    this.#frame = root.querySelector(".frame");
    this.#fieldset = root.querySelector(".edges fieldset");
    this.#fields = [...this.#fieldset.querySelectorAll("input")];
    this.#stage.addEventListener("pointerdown", (event) => this.#press(event));
    this.#frame.addEventListener("keydown", (event) => this.#key(event));
    this.#fieldset.addEventListener("change", () => this.#typed());
    this.#fieldset.querySelector("button").addEventListener("click", () => this.#set(null));
    this.#fieldset.form.addEventListener("submit", (event) => event.preventDefault());
  }

  get box() {
    return this.#box;
  }

  /** Start anew with a photo of that size, or with one of a size to be told later. */
  reset(size = null) {
    this.#show(null);
    this.resize(size);
  }

  /** The photo's size, which the service knows best. */
  resize(size) {
    this.#size = size;
    this.#fieldset.disabled = !size;
    this.#fields.forEach((field, i) => { field.max = size ? size[i % 2] : ""; });
  }

  #set(box) {
    this.#show(box);
    this.#changed();
  }

  #show(box) {
    const hadFocus = document.activeElement === this.#frame;
    this.#box = box;
    this.#frame.hidden = !box;
    this.#fields.forEach((field, i) => {
      field.setCustomValidity("");
      field.value = box ? box[i] : "";
    });
    if (box) this.#place(box);
    else if (hadFocus) this.#fields[0].focus();
  }

  #place([xmin, ymin, xmax, ymax]) {
    const [width, height] = this.#size;
    const shares = { left: xmin / width, top: ymin / height,
      width: (xmax - xmin) / width, height: (ymax - ymin) / height };
    for (const [name, share] of Object.entries(shares)) {
      this.#frame.style[name] = `${100 * share}%`;
    }
  }

  /** Where an event is, in whole pixels of the photo. */
  #point(event) {
    const seen = this.#stage.getBoundingClientRect();
    const [width, height] = this.#size;
    return [
      between(0, Math.round(((event.clientX - seen.left) / seen.width) * width), width),
      between(0, Math.round(((event.clientY - seen.top) / seen.height) * height), height),
    ];
  }

  /** Follow a pointer from here until it is lifted; Escape and the system can call it off. */
  #press(event) {
    if (!this.#size || !event.isPrimary || event.button) return;
    const before = this.#box;
    const drag = this.#dragFrom(event);
    let dragged = false;
    const lifted = new AbortController();
    const on = (target, name, act) => target.addEventListener(name, act, { signal: lifted.signal });
    const end = (box) => {
      lifted.abort();
      if (box === before) this.#show(before);
      else this.#set(box);
    };
    this.#stage.setPointerCapture(event.pointerId);
    on(this.#stage, "pointermove", (move) => {
      const far = Math.hypot(move.clientX - event.clientX, move.clientY - event.clientY);
      dragged ||= far >= LEAST_DRAG;
      if (dragged) this.#show(drag(this.#point(move)));
    });
    on(this.#stage, "pointerup", () => end(dragged && hasArea(this.#box) ? this.#box : before));
    on(this.#stage, "pointercancel", () => end(before));
    on(document, "keydown", (key) => { if (key.key === "Escape") end(before); });
  }

  /** What box a drag from here makes of a point: a corner, the whole, or a new one. */
  #dragFrom(event) {
    const start = this.#point(event);
    const box = this.#box;
    const corner = event.target.dataset.corner?.split(" ").map(Number);
    if (corner) {
      const opposite = corner.map((i) => box[(i + 2) % 4]);
      return (point) => spanned(opposite, point);
    }
    if (event.target === this.#frame) {
      return (point) => this.#moved(box, point[0] - start[0], point[1] - start[1]);
    }
    return (point) => spanned(start, point);
  }

  #moved([xmin, ymin, xmax, ymax], right, down) {
    const [width, height] = this.#size;
    const dx = between(-xmin, right, width - xmax);
    const dy = between(-ymin, down, height - ymax);
    return [xmin + dx, ymin + dy, xmax + dx, ymax + dy];
  }

  #key(event) {
    if (event.key === "Delete" || event.key === "Backspace") {
      event.preventDefault();
      this.#set(null);
      return;
    }
    const step = Math.max(1, Math.round(Math.max(...this.#size) / 100));
    const way = { ArrowLeft: [-step, 0], ArrowRight: [step, 0],
      ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    if (!way) return;
    event.preventDefault();
    this.#set(event.shiftKey ? this.#grown(...way) : this.#moved(this.#box, ...way));
  }

  #grown(right, down) {
    const [xmin, ymin, xmax, ymax] = this.#box;
    const [width, height] = this.#size;
    return [xmin, ymin,
      between(Math.min(xmin + 1, width), xmax + right, width),
      between(Math.min(ymin + 1, height), ymax + down, height)];
  }

  /** Take the numbers once there are four that make a box; none is no box. */
  #typed() {
    this.#fields.forEach((field) => field.setCustomValidity(""));
    const given = this.#fields.filter((field) => field.value !== "");
    if (!given.length && this.#box) this.#set(null);
    if (given.length < 4) return;
    const typed = this.#fields.map((field) => Number(field.value));
    const box = typed.map((value, i) => between(0, value, this.#size[i % 2]));
    if (hasArea(box)) {
      this.#set(box);
      return;
    }
    const wrong = box[0] < box[2] ? 1 : 0;
    const message = hasArea(typed)
      ? "The box lies outside the photo"
      : wrong ? "ymin must be less than ymax" : "xmin must be less than xmax";
    this.#fields[wrong].setCustomValidity(message);
    this.#fields[wrong].reportValidity();
  }
}

const hasArea = ([xmin, ymin, xmax, ymax]) => xmin < xmax && ymin < ymax;
