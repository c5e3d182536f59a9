// An answer of the service, and what the page works out from it: boxes and figures of each method.
import * as heatmaps from "./heatmap.js";

const DEFAULT_THRESHOLD = 0.15; // where the model has none, as in app/bundle.py

const TITLES = { cam: "CAM", gradcam: "Grad-CAM", gradcampp: "Grad-CAM++", layercam: "LayerCAM",
  hirescam: "HiResCAM" };
const LAYERS = { last: "last layer", last6: "last six layers" };

export const NO_EVIDENCE = {
  empty: "no positive evidence",
  constant: "the heatmap is constant",
  nonfinite: "the heatmap is not finite",
};

export const methodTitle = (method) => TITLES[method] ?? method;

/** `gradcam/last6` in words. */
export function specTitle(spec) {
  const [method, layers] = spec.split("/");
  return `${methodTitle(method)}, ${LAYERS[layers]}`;
}

/** What the model can show: its methods with their layers, as `/compare` names them. */
export function specsOf({ methods, layers }) {
  return methods.flatMap((method) => (method === "cam" || layers.length < 2
    ? [`${method}/last`] : [`${method}/last`, `${method}/last6`]));
}

/** The calibrated weight of the foreground and threshold by the rule `fused`; null without. */
export function fusedOf(model, spec) {
  const [method, layers] = spec.split("/");
  return model.fused?.[method]?.[layers] ?? null;
}

/** The rule that applies to a method: not every model has `fused` for each. */
export const ruleOf = (model, spec, rule) => (fusedOf(model, spec) ? rule : "heatmap");

export function calibrated(model, spec, rule) {
  const [method, layers] = spec.split("/");
  return ruleOf(model, spec, rule) === "fused"
    ? fusedOf(model, spec).threshold
    : model.thresholds?.[method]?.[layers] ?? DEFAULT_THRESHOLD;
}

/** One answer of `/compare` to all of `specs`, its heatmaps decoded once. */
export class Answer {
  #model; #explanations; #foreground;
  #heatmaps = new Map(); // by spec, at their layer's size
  #enlarged = new Map(); // by spec: the same map each time, so that it is coloured once

  constructor(model, specs, answer) {
    this.#model = model;
    this.#explanations = new Map(specs.map((spec, i) => [spec, answer.explanations[i]]));
    this.#foreground = answer.foreground && heatmaps.decode(answer.foreground);
    this.predictions = answer.predictions;
    this.confidence = answer.confidence;
    this.target = answer.target;
    this.versus = answer.explanations[0].explanation.versus;
    this.image = answer.image;
  }

  /** `{map, box, peak, status}` of a method in a photo of `[width, height]`. */
  panel(spec, { rule, threshold }, photo) {
    const { explanation: { status }, heatmap } = this.#explanations.get(spec);
    const applied = ruleOf(this.#model, spec, rule);
    const { box, peak, values } = heatmaps.located({
      heatmap: this.#decoded(spec, heatmap),
      foreground: this.#foreground,
      weight: fusedOf(this.#model, spec)?.foreground,
      rule: applied,
      threshold: threshold ?? calibrated(this.#model, spec, rule),
      size: this.#model.input.size,
      photo,
    });
    if (!this.#enlarged.has(spec)) this.#enlarged.set(spec, values);
    return { spec, status, box, peak, map: this.#enlarged.get(spec) };
  }

  #decoded(spec, heatmap) {
    if (!this.#heatmaps.has(spec)) this.#heatmaps.set(spec, heatmaps.decode(heatmap));
    return this.#heatmaps.get(spec);
  }
}

/** How a panel agrees with a box in the photo of `[width, height]`: as `localization` of the API. */
export function agreement({ map, box, peak }, own, [width, height]) {
  if (!map) return { iou: 0, energy: 0, peak: false };
  const inMap = heatmaps.scaleBox(own, [width, height], [map.width, map.height]);
  return {
    iou: heatmaps.iou(own, box),
    energy: heatmaps.energyInBox(map, inMap),
    peak: heatmaps.peakInBox(peak, own),
  };
}
