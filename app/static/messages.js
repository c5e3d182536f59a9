// What is said to people, in words, beside the place where they acted.

export class Message {
  #place;
  #working = null; // the text of what is in progress

  /** `place` is an element that is announced when it changes. */
  constructor(place) {
    this.#place = place;
  }

  get shown() {
    return !this.#place.hidden;
  }

  /** Say something. `again` is called by the button `Try again`; without it, there is one to close. */
  say(text, { again = null, error = false } = {}) {
    this.#working = null;
    this.#show([element("p", { textContent: text }), this.#button(again)], error, "assertive");
  }

  /**
   * Say what is in progress. Of it, `share` is done, 0..1, or null where that is not known. `rest`,
   * such as seconds that are left, is seen but not announced; both may change while the text stays.
   */
  work(text, { share = null, rest = "" } = {}) {
    if (this.#working !== text) {
      const tick = element("span", { ariaHidden: "true" });
      const line = element("p", {});
      line.append(`${text} `, tick);
      this.#show([line, element("progress", { max: 1, ariaLabel: "Progress" })], false, "polite");
      this.#working = text;
    }
    this.#place.querySelector("span").textContent = rest;
    const bar = this.#place.querySelector("progress");
    if (share === null) bar.removeAttribute("value");
    else bar.value = share;
  }

  #show(parts, error, urgency) {
    this.#place.classList.toggle("error", error);
    this.#place.classList.toggle("working", urgency === "polite");
    this.#place.setAttribute("aria-live", urgency);
    this.#place.replaceChildren(...parts);
    this.#place.hidden = false;
  }

  clear() {
    this.#working = null;
    this.#place.hidden = true;
    this.#place.replaceChildren();
  }

  #button(again) {
    const button = element("button", { type: "button", textContent: again ? "Try again" : "Close" });
    button.addEventListener("click", () => {
      this.#place.closest("[tabindex]")?.focus({ preventScroll: true }); // the button goes
      this.clear();
      again?.();
    });
    return button;
  }
}

/** An element with these properties. */
export function element(name, properties) {
  return Object.assign(document.createElement(name), properties);
}
