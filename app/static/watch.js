// A service that was lost: looked for quietly, until it answers again.

const FIRST_S = 2;
const MOST_S = 30;
const TRIES = 5; // a photo that breaks the service or the line is not sent for ever

/** Resolves at that event; never, once `signal` is aborted. */
const once = (target, name, signal) => new Promise((resolve) => {
  target.addEventListener(name, resolve, { once: true, signal });
});

const pause = (seconds) => new Promise((resolve) => { setTimeout(resolve, 1000 * seconds); });

export const SOON = "The page tries again once the service is back.";

export class Watch {
  #calledOff = new AbortController();
  #tries = 0; // since the service answered or its user tried again

  /**
   * Call `again` once the service is ready, unless `stop` comes first. It is asked less and less
   * often, and not while the page is hidden. Returns whether `again` may be called at all.
   */
  start(again) {
    this.stop();
    if (this.#tries === TRIES) return false;
    this.#tries += 1;
    this.#calledOff = new AbortController();
    this.#look(again, this.#calledOff.signal, FIRST_S * 2 ** (this.#tries - 1));
    return true;
  }

  /** Something else is asked of the service. */
  stop() {
    this.#calledOff.abort();
  }

  /** The service has answered, or its user takes over. */
  reset() {
    this.stop();
    this.#tries = 0;
  }

  async #look(again, signal, first) {
    for (let wait = first; ; wait *= 2) {
      await Promise.race([pause(Math.min(wait, MOST_S)), once(window, "online", signal)]);
      if (document.hidden) await once(document, "visibilitychange", signal);
      if (signal.aborted) return;
      const response = await fetch("readyz", { cache: "no-store", signal }).catch(() => null);
      if (signal.aborted) return;
      if (response?.ok) break;
    }
    again();
  }
}
