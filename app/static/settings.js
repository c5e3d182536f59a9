// What its user has chosen, and the link that restores it. The photo is in neither.

export const DEFAULTS = Object.freeze({
  method: "gradcam",
  layers: "last",
  compare: "off", // split, side
  second: "layercam/last6", // the method that is compared, with its layers
  opacity: 0.5,
  colormap: "jet",
  threshold: null, // share of the maximum; null: each method's calibrated one
  rule: "fused", // heatmap
  target: null, // a class; null: the likeliest
  versus: null, // a class
  box: null, // [xmin, ymin, xmax, ymax], pixels of the upright photo
});

/** What belongs to one photo, and not to the next. */
export const OF_A_PHOTO = Object.freeze({ target: null, versus: null, box: null });

const number = (text, least, most) => {
  const value = text === "" ? NaN : Number(text);
  return value >= least && value <= most ? value : undefined;
};
const among = (choices) => (text) => (choices.includes(text) ? text : undefined);

/** How each is read from a link; undefined where it cannot be. */
const READ = {
  compare: among(["off", "split", "side"]),
  opacity: (text) => number(text, 0, 1),
  threshold: (text) => number(text, 0.01, 1),
  rule: among(["fused", "heatmap"]),
  box(text) {
    const edges = text.split(",").map((edge) => number(edge, 0, 1e6));
    const right = edges.length === 4 && edges[0] < edges[2] && edges[1] < edges[3];
    return right ? edges : undefined;
  },
};

/** Settings as a link's fragment, without those that are the default; `name` is of a class. */
export function toFragment(settings, name) {
  const fields = new URLSearchParams();
  const { method, layers, compare, second, target, versus, ...others } = settings;
  if (method !== DEFAULTS.method || layers !== DEFAULTS.layers) {
    fields.set("method", `${method}/${layers}`);
  }
  if (compare !== "off") {
    fields.set("compare", compare);
    fields.set("second", second);
  }
  if (target !== null) fields.set("target", name(target));
  if (versus !== null) fields.set("versus", name(versus));
  for (const [key, value] of Object.entries(others)) {
    if (value !== DEFAULTS[key]) fields.set(key, value);
  }
  return fields.toString().replaceAll("%2F", "/").replaceAll("%2C", ",");
}

/** Settings that are not the default, in words; `name` is of a class, `title` of a method. */
export function inWords({ method, layers, compare, second, target, versus, ...others }, name, title) {
  const { box, colormap, opacity, rule, threshold } = others;
  const spec = `${method}/${layers}`;
  return [
    spec !== `${DEFAULTS.method}/${DEFAULTS.layers}` && title(spec),
    compare !== "off" && `compared with ${title(second)}`,
    target !== null && name(target),
    versus !== null && `versus ${name(versus)}`,
    opacity !== DEFAULTS.opacity && `opacity ${Math.round(100 * opacity)} %`,
    threshold !== null && `threshold ${threshold.toFixed(2)}`,
    colormap !== DEFAULTS.colormap && `colours ${colormap}`,
    rule !== DEFAULTS.rule && "box around the heatmap alone",
    box !== null && "a box",
  ].filter(Boolean);
}

/**
 * Settings from a link's fragment; what is wrong in it is the default.
 * `specs` are the model's methods with their layers, `colormaps` the names of colour maps,
 * `classOf` gives a name's class or undefined.
 */
export function fromFragment(fragment, { specs, colormaps, classOf }) {
  const fields = new URLSearchParams(fragment.replace(/^#/, ""));
  const read = { ...READ, colormap: among(colormaps), second: among(specs),
    target: classOf, versus: classOf };
  const settings = { ...DEFAULTS };
  for (const [key, reader] of Object.entries(read)) {
    if (fields.has(key)) settings[key] = reader(fields.get(key)) ?? DEFAULTS[key];
  }
  const spec = fields.get("method");
  if (specs.includes(spec)) [settings.method, settings.layers] = spec.split("/");
  if (settings.versus === settings.target) settings.versus = null;
  return settings;
}
