// The line between two heatmaps: dragged, or moved by the arrow keys.

const STEP = 0.02;

const between = (least, value, most) => Math.min(Math.max(value, least), most);

export class Divider {
  #element; #moved;
  share = 0.5; // of the width, left of the line

  /** `element` is a slider inside the picture; `moved()` is called when `share` has changed. */
  constructor(element, moved) {
    this.#element = element;
    this.#moved = moved;
    element.addEventListener("pointerdown", (event) => this.#press(event));
    element.addEventListener("keydown", (event) => this.#key(event));
    this.#set(this.share, () => {});
  }

  #set(share, then = this.#moved) {
    this.share = between(0, share, 1);
    this.#element.style.left = `${100 * this.share}%`;
    this.#element.setAttribute("aria-valuenow", Math.round(100 * this.share));
    then();
  }

  #press(event) {
    if (event.button || !event.isPrimary) return;
    event.stopPropagation(); // no box begins here
    event.preventDefault();
    this.#element.focus();
    this.#element.setPointerCapture(event.pointerId);
    const lifted = new AbortController();
    const { signal } = lifted;
    this.#element.addEventListener("pointermove", ({ clientX }) => {
      const seen = this.#element.parentElement.getBoundingClientRect();
      this.#set((clientX - seen.left) / seen.width);
    }, { signal });
    for (const name of ["pointerup", "pointercancel"]) {
      this.#element.addEventListener(name, () => lifted.abort(), { signal });
    }
  }

  #key(event) {
    const share = { ArrowLeft: this.share - STEP, ArrowRight: this.share + STEP,
      ArrowDown: this.share - STEP, ArrowUp: this.share + STEP,
      PageDown: this.share - 0.1, PageUp: this.share + 0.1, Home: 0, End: 1 }[event.key];
    if (share === undefined) return;
    event.preventDefault();
    this.#set(share);
  }
}
