// The service's colour maps as pixels for a canvas.
import { COLORMAPS } from "./colormaps.js";

const tables = new Map();

/** The 256 colours of a colour map as uint32, in the byte order of `ImageData`. */
export function coloursOf(name) {
  if (!tables.has(name)) tables.set(name, pixels(Uint8Array.from(atob(COLORMAPS[name]), (c) => c.charCodeAt())));
  return tables.get(name);
}

function pixels(rgb) {
  const rgba = new Uint8Array(4 * 256).fill(255);
  for (let level = 0; level < 256; level += 1) rgba.set(rgb.subarray(3 * level, 3 * level + 3), 4 * level);
  return new Uint32Array(rgba.buffer);
}
