// The user's box over the photo: drawn, moved and resized by pointer, keys or numbers.

const LEAST_DRAG = 4; // CSS pixels: less is a tap

const between = (least, value, most) => Math.min(Math.max(value, least), most);

/** The box with two points as opposite corners. */
const spanned = ([x, y], [u, v]) => [
  Math.min(x, u), Math.min(y, v), Math.max(x, u), Math.max(y, v),
];

const hasArea = ([xmin, ymin, xmax, ymax]) => xmin < xmax && ymin < ymax;

/** Place an element over a photo of that size; `box` in the photo's pixels, null hides it. */
export function place(element, box, [width, height]) {
  element.hidden = !box;
  if (!box) return;
  const [xmin, ymin, xmax, ymax] = box;
  const shares = { left: xmin / width, top: ymin / height,
    width: (xmax - xmin) / width, height: (ymax - ymin) / height };
  for (const [name, share] of Object.entries(shares)) element.style[name] = `${100 * share}%`;
}

export class BoxEditor {
  #surfaces; #frames; #fieldset; #fields; #remove; #changed;
  #size = null; // [width, height] of the photo, pixels; null: not known yet
  #box = null; // [xmin, ymin, xmax, ymax]

  /** Draw fingers and pens too; a mouse always does. */
  drawing = false;

  /**
   * `surfaces` are the elements over which the photo lies, each with a `.frame`; `fieldset` has
   * the four numbers and a button that removes the box; `changed(box)` is called when its user has made the box another.
   */
  constructor(surfaces, fieldset, changed) {
    this.#changed = changed;
    this.#surfaces = surfaces;
    this.#frames = surfaces.map((surface) => surface.querySelector(".frame"));
    this.#fieldset = fieldset;
    this.#fields = [...fieldset.querySelectorAll("input")];
    for (const surface of surfaces) {
      surface.addEventListener("pointerdown", (event) => this.#press(event, surface));
    }
    for (const frame of this.#frames) {
      frame.addEventListener("keydown", (event) => this.#key(event));
    }
    fieldset.addEventListener("change", () => this.#typed());
    this.#remove = fieldset.querySelector("button");
    this.#remove.addEventListener("click", () => this.set(null));
  }

  get box() {
    return this.#box;
  }

  /** Start anew with a photo of that size, or with one whose size is not known yet. */
  reset(size = null, box = null) {
    this.#size = size;
    this.#fieldset.disabled = !size;
    this.#fields.forEach((field, i) => { field.max = size ? size[i % 2] : ""; });
    this.#show(size && box ? this.#clipped(box) : null);
  }

  /** Take this box, as if its user had drawn it; null removes it. */
  set(box) {
    this.#show(box);
    this.#changed(box);
  }

  #clipped(box) {
    const clipped = box.map((edge, i) => between(0, edge, this.#size[i % 2]));
    return hasArea(clipped) ? clipped : null;
  }

  #show(box) {
    const hadFocus = [this.#remove, ...this.#frames].includes(document.activeElement);
    this.#box = box;
    this.#fieldset.classList.toggle("boxed", Boolean(box));
    for (const frame of this.#frames) place(frame, box, this.#size ?? [1, 1]);
    this.#fields.forEach((field, i) => {
      field.setCustomValidity("");
      field.value = box ? Number(box[i].toFixed(1)) : "";
    });
    if (!box && hadFocus) this.#fields[0].focus();
  }

  /** Where an event is, in whole pixels of the photo. */
  #point(event, surface) {
    const seen = surface.getBoundingClientRect();
    const [width, height] = this.#size;
    return [
      between(0, Math.round(((event.clientX - seen.left) / seen.width) * width), width),
      between(0, Math.round(((event.clientY - seen.top) / seen.height) * height), height),
    ];
  }

  /** Follow a pointer from here until it is lifted; Escape and the system can call it off. */
  #press(event, surface) {
    const onCorner = event.target.dataset.corner !== undefined;
    const may = event.pointerType === "mouse" || this.drawing || onCorner;
    if (!may || !this.#size || !event.isPrimary || event.button) return;
    if (event.target.closest("[role=slider]")) return; // the divider
    const before = this.#box;
    const drag = this.#dragFrom(event, surface);
    let dragged = false;
    const lifted = new AbortController();
    const on = (target, name, act) => target.addEventListener(name, act, { signal: lifted.signal });
    const end = (box) => {
      lifted.abort();
      if (box === before) this.#show(before);
      else this.set(box);
    };
    surface.setPointerCapture(event.pointerId);
    on(surface, "pointermove", (move) => {
      const far = Math.hypot(move.clientX - event.clientX, move.clientY - event.clientY);
      dragged ||= far >= LEAST_DRAG;
      if (dragged) this.#show(drag(this.#point(move, surface)));
    });
    on(surface, "pointerup", () => end(dragged && hasArea(this.#box) ? this.#box : before));
    on(surface, "pointercancel", () => end(before));
    on(document, "keydown", (key) => { if (key.key === "Escape") end(before); });
  }

  /** What box a drag from here makes of a point: a corner, the whole, or a new one. */
  #dragFrom(event, surface) {
    const start = this.#point(event, surface);
    const box = this.#box;
    const corner = event.target.dataset.corner?.split(" ").map(Number);
    if (corner) {
      const opposite = corner.map((i) => box[(i + 2) % 4]);
      return (point) => spanned(opposite, point);
    }
    if (this.#frames.includes(event.target)) {
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
      this.set(null);
      return;
    }
    const step = Math.max(1, Math.round(Math.max(...this.#size) / 100));
    const way = { ArrowLeft: [-step, 0], ArrowRight: [step, 0],
      ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    if (!way) return;
    event.preventDefault();
    this.set(event.shiftKey ? this.#grown(...way) : this.#moved(this.#box, ...way));
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
    const filled = this.#fields.filter((field) => field.value !== "");
    if (!filled.length && this.#box) this.set(null);
    if (filled.length < 4) return;
    const typed = this.#fields.map((field) => Number(field.value));
    const box = this.#clipped(typed);
    if (box) {
      this.set(box);
      return;
    }
    const wrong = typed[0] < typed[2] ? 1 : 0;
    const message = hasArea(typed)
      ? "The box lies outside the photo"
      : wrong ? "ymin must be less than ymax" : "xmin must be less than xmax";
    this.#fields[wrong].setCustomValidity(message);
    this.#fields[wrong].reportValidity();
  }
}
