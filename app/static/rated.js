// Which methods this browser's ratings of a photo have named: of these, it is not asked again.

const KEY = "breedcam-rated";
const MOST = 200; // photos: the last ones rated, with at most 300 bytes each

let entries = []; // [id, [spec, ...]], the last rated last: where nothing can be kept

function load() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY));
    if (Array.isArray(kept)) {
      entries = kept.filter((entry) => Array.isArray(entry) && Array.isArray(entry[1]));
    }
  } catch { /* no cookies, or not what was stored: `entries` has it */ }
  return new Map(entries);
}

/** The specs that ratings of this photo have named. `id` stands for a photo and a model version. */
export const namedIn = (id) => new Set(load().get(id));

/** Remember two more, and return all. */
export function name(id, pair) {
  const all = load();
  const named = new Set([...all.get(id) ?? [], ...pair]);
  all.delete(id);
  all.set(id, [...named]);
  entries = [...all].slice(-MOST);
  try { localStorage.setItem(KEY, JSON.stringify(entries)); } catch { /* `entries` has it */ }
  return named;
}
