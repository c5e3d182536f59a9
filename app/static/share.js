// What can be taken along: the picture, and the same question as a command.
import { drawBoxes, fit, paint } from "./stage.js";

const LONGEST = 4096; // pixels of a side
const LARGEST = 2 ** 24; // pixels in all: some browsers, on phones above all, draw no larger picture
const GAP = 1 / 64; // between two pictures, of one's width

/**
 * The picture that the stage shows, at the photo's scale or the largest that browsers draw, as a
 * PNG; rejects where this one draws none.
 *
 * `panels` have a heatmap and its found box each: one, or two to compare; `divider` is the share of
 * the width left of the line where `compare` is `split`.
 */
export async function picture(photo, panels, { settings, divider }) {
  const { compare, box: own } = settings;
  const { width, height } = photo;
  const row = compare === "side" ? 2 + GAP : 1; // in widths of the photo
  const longest = Math.min(LONGEST, Math.max(width, height) * Math.sqrt(LARGEST / (row * width * height)));
  const canvases = (compare === "side" ? panels : panels.slice(0, 1)).map(() => {
    const canvas = document.createElement("canvas");
    fit(canvas, photo, longest);
    return canvas;
  });
  if (compare === "split") {
    paint(canvases[0], photo, panels[0].map, settings, { to: divider });
    paint(canvases[0], photo, panels[1].map, settings, { from: divider });
    drawBoxes(canvases[0], photo, { own, found: panels.map(({ box }) => box) });
    cut(canvases[0], divider);
  } else {
    canvases.forEach((canvas, i) => {
      paint(canvas, photo, panels[i].map, settings);
      drawBoxes(canvas, photo, { own, found: [panels[i].box] });
    });
  }
  const whole = beside(canvases);
  const blob = await new Promise((resolve) => { whole.toBlob(resolve, "image/png"); });
  if (!blob) throw new Error("no picture");
  return blob;
}

function cut(canvas, share) {
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(Math.round(share * canvas.width) - 1, 0, 3, canvas.height);
}

function beside(canvases) {
  if (canvases.length === 1) return canvases[0];
  const [{ width, height }] = canvases;
  const gap = Math.max(2, Math.round(width * GAP));
  const whole = document.createElement("canvas");
  [whole.width, whole.height] = [2 * width + gap, height];
  const pen = whole.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, whole.width, height);
  canvases.forEach((canvas, i) => pen.drawImage(canvas, i * (width + gap), 0));
  return whole;
}

/** Offer bytes as a file to keep. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/**
 * The endpoint and the parameters that ask the service for what is chosen: one method or two.
 * Without `overlay`, for the figures alone: nothing is coloured.
 */
function question({ method, layers, compare, second, rule, threshold, versus, target, box, colormap, opacity }, overlay) {
  const fields = new URLSearchParams(overlay ? { colormap, alpha: opacity } : { overlay });
  const one = compare === "off";
  if (!one) {
    for (const spec of [`${method}/${layers}`, second]) fields.append("method", spec);
  } else if (method !== "cam") {
    fields.set("method", method);
    fields.set("layers", layers);
  }
  if (target !== null) fields.set("target", target);
  if (versus !== null) fields.set("versus", versus);
  if (box) fields.set("box", box.map((edge) => Number(edge.toFixed(1))).join());
  if (threshold !== null) fields.set("threshold", threshold);
  if (rule) fields.set("rule", rule);
  return { path: one ? (method === "cam" ? "cam" : "gradcam") : "compare", fields };
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const python = (text) => JSON.stringify(text);

/** The question as a curl command; it writes the picture. `settings.target` is a name here. */
export function curl(settings, { base, file, locked }) {
  const { path, fields } = question(settings, true);
  const parameters = fields.toString().replaceAll("%2C", ",").replaceAll("%2F", "/");
  const address = `${new URL(path, base)}?${parameters}`;
  const key = locked ? ' \\\n  -H "Authorization: Bearer $BREEDCAM_KEY"' : "";
  return `curl -sS --fail-with-body -F ${quoted(`file=@"${file.replace(/["\\]/g, "\\$&")}"`)}${key} \\\n`
    + `  -H 'Accept: image/png' -o overlay.png \\\n  ${quoted(address)}\n`;
}

/** The question in Python, with httpx; it prints the figures. */
export function httpx(settings, { base, file, locked }) {
  const { path, fields } = question(settings, false);
  const params = [...new Set(fields.keys())].map((name) => {
    const values = fields.getAll(name).map(python);
    return `    ${python(name)}: ${values.length > 1 ? `[${values.join(", ")}]` : values[0]},`;
  });
  const key = locked
    ? 'headers = {"Authorization": f"Bearer {os.environ[\'BREEDCAM_KEY\']}"}\n' : "";
  return `${locked ? "import os\n" : ""}from pathlib import Path\n\nimport httpx\n\n`
    + `params = {\n${params.join("\n")}\n}\n${key}`
    + `photo = Path(${python(file)}).read_bytes()\n`
    + `response = httpx.post(${python(`${new URL(path, base)}`)}, params=params, content=photo`
    + `${locked ? ", headers=headers" : ""}, timeout=30)\n`
    + "response.raise_for_status()\nprint(response.json())\n";
}
