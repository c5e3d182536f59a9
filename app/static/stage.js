// Drawing a heatmap over a photo: on the stage, in the picture to download, or in any other canvas.
import { coloursOf } from "./colours.js";

const FOUND = "rgb(64 255 64)";
const OWN = "#fff";

const drawn = new WeakMap(); // of maps: their pictures by colour map

/** A map in colour, at its own size: level 0..255 of each value picks the colour. */
function coloured(map, colormap) {
  const pictures = drawn.get(map) ?? drawn.set(map, new Map()).get(map);
  if (!pictures.has(colormap)) pictures.set(colormap, paintMap(map, coloursOf(colormap)));
  return pictures.get(colormap);
}

function paintMap({ width, height, values }, colours) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const pen = canvas.getContext("2d");
  const picture = pen.createImageData(width, height);
  const pixels = new Uint32Array(picture.data.buffer);
  for (let i = 0; i < values.length; i += 1) {
    pixels[i] = colours[Math.min(255, Math.max(0, Math.round(255 * values[i])))];
  }
  pen.putImageData(picture, 0, 0);
  return canvas;
}

/**
 * Draw a photo with a heatmap over it: `(1 - opacity) * photo + opacity * colour`.
 *
 * `canvas` is filled; `photo` has a `bitmap`; `map` is a heatmap of values 0..1 at any size, null
 * for the photo alone. Of `settings`, `opacity` and `colormap` count. `from` and `to` are the shares
 * of the width between which to draw.
 */
export function paint(canvas, photo, map, { opacity, colormap }, { from = 0, to = 1 } = {}) {
  const { width, height } = canvas;
  const pen = canvas.getContext("2d");
  pen.save();
  pen.beginPath();
  pen.rect(Math.round(from * width), 0, Math.round(to * width) - Math.round(from * width), height);
  pen.clip();
  pen.imageSmoothingQuality = "high";
  pen.fillStyle = "#fff"; // behind what is transparent, as in the service
  pen.fillRect(0, 0, width, height);
  pen.drawImage(photo.bitmap, 0, 0, width, height);
  if (map) {
    pen.globalAlpha = opacity;
    pen.drawImage(coloured(map, colormap), 0, 0, width, height);
  }
  pen.restore();
}

/** Give a canvas the photo's shape, with its longest side at most `longest` pixels. */
export function fit(canvas, { width, height }, longest) {
  const scale = Math.min(1, longest / Math.max(width, height));
  const size = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
  if (canvas.width !== size[0]) [canvas.width] = size;
  if (canvas.height !== size[1]) [, canvas.height] = size;
}

/** Draw boxes into a picture, as the service does: found ones in green, the user's in white. */
export function drawBoxes(canvas, photo, { found = [], own = null }) {
  const pen = canvas.getContext("2d");
  const thick = Math.max(1, Math.round(Math.max(canvas.width, canvas.height) / 250));
  const scale = [canvas.width / photo.width, canvas.height / photo.height];
  const boxes = [...(own ? [[own, OWN]] : []), ...found.filter(Boolean).map((box) => [box, FOUND])];
  for (const [box, colour] of boxes) {
    const [xmin, ymin, xmax, ymax] = box.map((edge, i) => edge * scale[i % 2]);
    for (const [style, wide] of [["#000", thick + 2], [colour, thick]]) {
      pen.strokeStyle = style;
      pen.lineWidth = wide;
      pen.strokeRect(xmin + 0.5, ymin + 0.5,
        Math.max(1, xmax - xmin - 1), Math.max(1, ymax - ymin - 1));
    }
  }
}

/** Draw a colour map from its level 0 to 255 along a canvas. */
export function paintScale(canvas, colormap) {
  const values = Float32Array.from({ length: 256 }, (_, level) => level / 255);
  [canvas.width, canvas.height] = [256, 1];
  canvas.getContext("2d").drawImage(paintMap({ width: 256, height: 1, values }, coloursOf(colormap)), 0, 0);
}
