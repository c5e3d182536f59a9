// What is said to people, in words, beside the place where they acted.

export class Message {
  #place;

  /** `place` is an element that is announced when it changes. */
  constructor(place) {
    this.#place = place;
  }

  get shown() {
    return !this.#place.hidden;
  }

  /**
   * Say something. `again` is called by the button `Try again`; without it, there is one to close
   * the message. Work in progress has a `share` of it done, 0..1, or null where that is not known.
   */
  say(text, { again = null, error = false, share } = {}) {
    const working = share !== undefined;
    const parts = [element("p", { textContent: text })];
    if (working) parts.push(progress(share));
    if (!working || again) parts.push(this.#button(again));
    this.#place.classList.toggle("error", error);
    this.#place.setAttribute("aria-live", working ? "polite" : "assertive");
    this.#place.replaceChildren(...parts);
    this.#place.hidden = false;
  }

  /** Change the share that is done, and nothing else. */
  advance(share) {
    const bar = this.#place.querySelector("progress");
    if (bar) bar.value = share;
  }

  clear() {
    this.#place.hidden = true;
    this.#place.replaceChildren();
  }

  #button(again) {
    const button = element("button", { type: "button", textContent: again ? "Try again" : "Close" });
    button.addEventListener("click", () => {
      this.clear();
      again?.();
    });
    return button;
  }
}

function progress(share) {
  const bar = element("progress", { max: 1, ariaLabel: "Progress" });
  if (share !== null) bar.value = share;
  return bar;
}

function element(name, properties) {
  return Object.assign(document.createElement(name), properties);
}
