// From a heatmap of the API to its box, peak and figures: what app/heatmaps.py and app/evidence.py
// do, number by number. No document here: plain functions of numbers.
//
// A map is {height, width, values}: a Float32Array, row by row, 0..1. A box is [xmin, ymin, xmax,
// ymax] with its far edges exclusive, a point [x, y]; both in pixels of the map or the photo that
// they belong to. The service counts in 32 bits, so `Math.fround` rounds where it does.

const { fround } = Math;

/** A map from `{height, width, data}`, `data` being base64 of little-endian float32. */
export function decode({ height, width, data }) {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const values = Float32Array.from({ length: height * width }, (_, index) =>
    view.getFloat32(4 * index, true),
  );
  return { height, width, values };
}

/** A map in another size: bilinear, with pixel centres at half-integers and the border repeated. */
export function resize(map, width, height) {
  if (map.width === width && map.height === height) {
    return map;
  }
  const across = neighbours(map.width, width);
  const down = neighbours(map.height, height);
  // First along the rows, [h, w] -> [h, width], then along the columns -> [height, width].
  const rows = new Float32Array(map.height * width);
  for (let y = 0; y < map.height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const start = y * map.width;
      rows[y * width + x] = between(
        map.values[start + across.first[x]],
        map.values[start + across.second[x]],
        across.share[x],
      );
    }
  }
  const values = new Float32Array(height * width);
  for (let y = 0; y < height; y += 1) {
    const [first, second] = [down.first[y] * width, down.second[y] * width];
    for (let x = 0; x < width; x += 1) {
      values[y * width + x] = between(rows[first + x], rows[second + x], down.share[y]);
    }
  }
  return { height, width, values };
}

/** For each of `to` pixels, the two of `from` that it lies between, and the share of the second. */
function neighbours(from, to) {
  const first = new Int32Array(to);
  const second = new Int32Array(to);
  const share = new Float32Array(to);
  for (let place = 0; place < to; place += 1) {
    const at = ((place + 0.5) * from) / to - 0.5;
    const whole = Math.floor(at);
    const inside = whole >= 0 && whole < from - 1;
    first[place] = Math.min(Math.max(whole, 0), from - 1);
    second[place] = inside ? whole + 1 : first[place];
    share[place] = inside ? at - whole : 0;
  }
  return { first, second, share };
}

/** As OpenCV counts on Intel and AMD: the difference is rounded, the product is not. */
function between(first, second, share) {
  return fround(fround(second - first) * share + first);
}

/** `(1 - weight) * map + weight * foreground`, of maps of one size. */
export function blend(map, foreground, weight) {
  const second = fround(weight);
  const first = fround(1 - second);
  const values = new Float32Array(map.values.length);
  for (let place = 0; place < values.length; place += 1) {
    values[place] = fround(first * map.values[place]) + fround(second * foreground.values[place]);
  }
  return { height: map.height, width: map.width, values };
}

/**
 * The box around the largest 8-connected region of values at or over a share of the greatest.
 * Of equally large ones the uppermost counts, then the leftmost. Null where the map is all zero.
 */
export function locate(map, threshold) {
  const { height, width, values } = map;
  const top = greatest(values);
  if (top <= 0) {
    return null;
  }
  const level = fround(fround(threshold) * top);
  const free = new Uint8Array(values.length); // 1: at or over the level, and of no region yet
  for (let place = 0; place < free.length; place += 1) {
    free[place] = values[place] >= level;
  }
  const stack = new Int32Array(values.length);
  let largest = null;
  for (let place = 0; place < free.length; place += 1) {
    if (free[place] === 1) {
      const region = fill(free, stack, place, width, height);
      if (largest === null || isBefore(region, largest)) {
        largest = region;
      }
    }
  }
  return largest.box;
}

/** The region of the pixel at `start`, whose pixels are no longer free then: its count and box. */
function fill(free, stack, start, width, height) {
  let [xmin, ymin, xmax, ymax] = [width, height, 0, 0];
  let [pixels, waiting] = [0, 1];
  stack[0] = start;
  free[start] = 0;
  while (waiting > 0) {
    waiting -= 1;
    const place = stack[waiting];
    const [x, y] = [place % width, Math.floor(place / width)];
    pixels += 1;
    xmin = Math.min(xmin, x);
    ymin = Math.min(ymin, y);
    xmax = Math.max(xmax, x + 1);
    ymax = Math.max(ymax, y + 1);
    for (let row = Math.max(y - 1, 0); row <= Math.min(y + 1, height - 1); row += 1) {
      for (let column = Math.max(x - 1, 0); column <= Math.min(x + 1, width - 1); column += 1) {
        const near = row * width + column;
        if (free[near] === 1) {
          free[near] = 0; // each pixel waits once, so the stack holds them all
          stack[waiting] = near;
          waiting += 1;
        }
      }
    }
  }
  return { pixels, box: [xmin, ymin, xmax, ymax] };
}

/** Whether a region is chosen rather than another: by pixels, then by its box's place and size. */
function isBefore(region, other) {
  if (region.pixels !== other.pixels) {
    return region.pixels > other.pixels;
  }
  const [own, its] = [region.box, other.box].map(([xmin, ymin, xmax, ymax]) => [
    ymin,
    xmin,
    xmax,
    ymax,
  ]);
  const place = own.findIndex((edge, index) => edge !== its[index]);
  return place >= 0 && own[place] < its[place];
}

/** The middle of the greatest value's pixel; of equal ones, the first row by row. */
export function peak(map) {
  const place = map.values.indexOf(greatest(map.values));
  return [(place % map.width) + 0.5, Math.floor(place / map.width) + 0.5];
}

function greatest(values) {
  let top = 0;
  for (const value of values) {
    if (value > top) {
      top = value;
    }
  }
  return top;
}

/** A box in an image of `source` pixels, [width, height], in one of `target`. */
export function scaleBox(box, source, target) {
  const [x, y] = [target[0] / source[0], target[1] / source[1]];
  return [box[0] * x, box[1] * y, box[2] * x, box[3] * y];
}

/**
 * What the service answers for an explanation: `{box, peak, values}`.
 *
 * `heatmap` and `foreground` are maps of `decode`; `weight` is the foreground's by the rule `fused`
 * (`fused` in /model); `rule` is `fused` or `heatmap`; `threshold` a share of the maximum; `size`
 * the model's input size (`input.size` in /model); `photo` the upright photo's [width, height].
 *
 * `box` and `peak` are in the photo's pixels, `values` is the heatmap enlarged to size x size. All
 * three are null where there is no evidence: where the heatmap is all zero.
 */
export function located({ heatmap, foreground, weight, rule, threshold, size, photo }) {
  if (greatest(heatmap.values) <= 0) {
    return { box: null, peak: null, values: null };
  }
  const values = resize(heatmap, size, size);
  const searched =
    rule === "fused" ? blend(values, resize(foreground, size, size), weight) : values;
  const [x, y] = peak(heatmap);
  return {
    box: scaleBox(locate(searched, threshold), [size, size], photo),
    peak: [(x * photo[0]) / heatmap.width, (y * photo[1]) / heatmap.height],
    values,
  };
}

/** Intersection over union of two boxes, 0..1. */
export function iou(a, b) {
  const width = Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0]));
  const height = Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  const common = width * height;
  return common > 0 ? common / (area(a) + area(b) - common) : 0;
}

function area([xmin, ymin, xmax, ymax]) {
  return (xmax - xmin) * (ymax - ymin);
}

/** The share of a map's sum inside a box of its pixels; a pixel on an edge counts by its part. */
export function energyInBox(map, box) {
  const { height, width, values } = map;
  const across = overlap(width, box[0], box[2]);
  const down = overlap(height, box[1], box[3]);
  let [total, inside] = [0, 0];
  for (let y = 0; y < height; y += 1) {
    let row = 0;
    for (let x = 0; x < width; x += 1) {
      const value = values[y * width + x];
      total += value;
      row += value * across[x];
    }
    inside += row * down[y];
  }
  return total > 0 ? Math.min(1, inside / total) : 0;
}

/** How much of each of `pixels` unit cells lies between `low` and `high`. */
function overlap(pixels, low, high) {
  return Float64Array.from({ length: pixels }, (_, place) =>
    Math.min(Math.max(Math.min(place + 1, high) - Math.max(place, low), 0), 1),
  );
}

/** Whether a point lies in a box, edges included. */
export function peakInBox(point, box) {
  return (
    box[0] <= point[0] && point[0] <= box[2] && box[1] <= point[1] && point[1] <= box[3]
  );
}
