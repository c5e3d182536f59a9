// Dogs for those without a photo, drawn hair by hair: no photo is behind them.

const WIDTH = 480;
const HEIGHT = 360;
const X = 236; // the middle of the dog

/** Ellipses: centre x, y, half width, half height. */
const BODY = [X, 318, 128, 132];
const CHEST = [X, 268, 96, 84];
const HEAD = [X, 146, 92, 82];
const CHEEKS = [X, 172, 108, 58];
const MUZZLE = [X, 186, 40, 34];

/** Coats: from dark to light; of the muzzle and chest the same, where they are of another colour. */
export const SAMPLES = Object.freeze([
  { name: "White dog", seed: 1, ears: "up", coat: ["#c4beb8", "#f6f4f0"], rosy: "#cda59f" },
  { name: "Golden dog", seed: 2, ears: "down", coat: ["#9a6a34", "#e3b878"],
    muzzle: ["#c79c62", "#f0d3a2"], rosy: "#8a5a34" },
  { name: "Black and white dog", seed: 3, ears: "up", coat: ["#15161a", "#43464e"],
    muzzle: ["#c9c6c2", "#faf9f6"], chest: ["#c9c6c2", "#faf9f6"], blaze: true, rosy: "#6a5552" },
]);

/** Numbers in 0..1, the same for the same seed (mulberry32). */
function random(seed) {
  let state = seed * 0x9e3779b9;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const normal = (next) => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());

const channels = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));

/** `share` of the second colour, the rest of the first. */
function mix(first, second, share) {
  const part = Math.min(1, Math.max(0, share));
  const [one, other] = [channels(first), channels(second)];
  return `rgb(${one.map((value, i) => Math.round(value + part * (other[i] - value))).join(" ")})`;
}

/** Draw a sample over a canvas of any size. */
export function draw(canvas, sample) {
  const pen = canvas.getContext("2d");
  const next = random(sample.seed);
  const { coat, muzzle = coat, chest = coat } = sample;
  pen.save();
  pen.scale(canvas.width / WIDTH, canvas.height / HEIGHT);
  meadow(pen, next);
  fur(pen, next, BODY, 6000, 26, 0.82, coat);
  fur(pen, next, CHEST, 4500, 24, 0.94, chest);
  if (sample.ears === "up") for (const side of [-1, 1]) raisedEar(pen, next, side, sample);
  fur(pen, next, CHEEKS, 4500, 20, 0.9, coat);
  fur(pen, next, HEAD, 6000, 16, 0.97, coat);
  if (sample.blaze) fur(pen, next, [X, 116, 15, 56], 900, 10, 1, muzzle);
  fur(pen, next, MUZZLE, 2000, 8, 1, muzzle);
  if (sample.ears === "down") for (const side of [-1, 1]) hangingEar(pen, next, side, coat);
  face(pen);
  pen.restore();
}

/** A sample as the file of a photo. */
export async function file(sample) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [2 * WIDTH, 2 * HEIGHT];
  draw(canvas, sample);
  const blob = await new Promise((resolve) => { canvas.toBlob(resolve, "image/jpeg", 0.92); });
  return new File([blob], `${sample.name.toLowerCase().replaceAll(" ", "-")}.jpg`, { type: blob.type });
}

function stroke(pen, x, y, toX, toY, colour, width) {
  pen.strokeStyle = colour;
  pen.lineWidth = width;
  pen.beginPath();
  pen.moveTo(x, y);
  pen.lineTo(toX, toY);
  pen.stroke();
}

function oval(pen, [x, y, width, height], colour) {
  pen.fillStyle = colour;
  pen.beginPath();
  pen.ellipse(x, y, width, height, 0, 0, 2 * Math.PI);
  pen.fill();
}

/** Green out of focus above, blades of grass below. */
function meadow(pen, next) {
  const sky = pen.createLinearGradient(0, 0, 0, HEIGHT);
  sky.addColorStop(0, "#60805c");
  sky.addColorStop(1, "#567a30");
  pen.fillStyle = sky;
  pen.fillRect(0, 0, WIDTH, HEIGHT);
  for (let blade = 0; blade < 5000; blade += 1) {
    const [x, y] = [WIDTH * next(), 190 + 190 * next()];
    const [length, lean] = [8 + 18 * next(), 5 * normal(next)];
    stroke(pen, x, y, x + lean, y - length, mix("#34581e", "#8eac54", next()), 1.4);
  }
}

/** Hairs from the rim inwards: they point away from the centre and down, and darken outwards. */
function fur(pen, next, [x0, y0, width, height], hairs, length, light, [dark, bright]) {
  for (let hair = 0; hair < hairs; hair += 1) {
    const radius = Math.sqrt(1 - hair / hairs);
    const angle = 2 * Math.PI * next();
    const [x, y] = [x0 + width * radius * Math.cos(angle), y0 + height * radius * Math.sin(angle)];
    const way = Math.atan2(Math.sin(angle) + 0.7, Math.cos(angle)) + 0.35 * normal(next);
    const shade = light * (1 - 0.28 * radius ** 3) + 0.07 * normal(next) - 0.06 * Math.sin(angle);
    stroke(pen, x, y, x + length * Math.cos(way) * 0.8, y + length * Math.sin(way) * 0.8,
      mix(dark, bright, 1.6 * shade - 0.6), 1.6);
  }
}

function polygon(pen, points, colour) {
  pen.fillStyle = colour;
  pen.beginPath();
  points.forEach(([x, y]) => pen.lineTo(x, y));
  pen.fill();
}

/** An upright triangle with a rosy inside. */
function raisedEar(pen, next, side, { coat: [dark, bright], rosy }) {
  const base = X + side * 56;
  const tip = [X + side * 84, 38];
  const outer = [[base - side * 34, 84], tip, [X + side * 96, 128]];
  polygon(pen, outer, mix(dark, bright, 0.6));
  polygon(pen, [[base - side * 8, 92], [tip[0] - side * 3, 58], [X + side * 86, 116]], rosy);
  for (let hair = 0; hair < 700; hair += 1) {
    const share = next();
    const [[x1, y1], [x2, y2]] = next() < 0.5 ? [outer[0], tip] : [tip, outer[2]];
    const [x, y] = [x1 + (x2 - x1) * share + 3 * normal(next), y1 + (y2 - y1) * share + 3 * normal(next)];
    stroke(pen, x, y, x + 4 * normal(next), y + 4 + 8 * next(), mix(dark, bright, 0.4 + 0.6 * next()), 1.5);
  }
}

/** A flap that hangs beside the head. */
function hangingEar(pen, next, side, coat) {
  const darker = [mix(coat[0], "#000000", 0.25), mix(coat[1], coat[0], 0.45)].map(hex);
  fur(pen, next, [X + side * 92, 150, 27, 62], 2600, 15, 0.92, darker);
}

const hex = (rgb) => `#${rgb.match(/\d+/g).map((value) => Number(value).toString(16).padStart(2, "0")).join("")}`;

/** Eyes, nose, mouth and tongue. */
function face(pen) {
  const ink = "#1c181a";
  for (const side of [-1, 1]) {
    const x = X + side * 34;
    oval(pen, [x, 138, 10.8, 9], "#786e68");
    oval(pen, [x, 138, 9, 8], ink);
    oval(pen, [x - 3, 135, 2.4, 2.4], "#fafafa");
  }
  oval(pen, [X, 214, 15, 20], "#d66c74");
  for (const side of [-1, 1]) {
    pen.strokeStyle = ink;
    pen.lineWidth = 3;
    pen.beginPath();
    pen.ellipse(X + side * 20, 194, 20, 16, 0, 0.17, 2.97);
    pen.stroke();
  }
  oval(pen, [X, 172, 18, 13], ink);
  oval(pen, [X - 6, 166, 5, 2.5], "#605c5e");
  stroke(pen, X, 180, X, 200, ink, 3);
}
