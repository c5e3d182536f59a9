// A file from its user's machine: read once, turned upright, scaled down before it is sent.

const LONGEST = 1600; // pixels of a side that are sent: the model sees a few hundred
const LONGEST_KEPT = 4096; // pixels of a side that are shown and downloaded
const QUALITY = 0.92;

/**
 * A photo to explain.
 * - `file`: the bytes of its file; `body`: those that are sent;
 * - `bitmap`: the upright picture, scaled down where it is large; null where this browser cannot decode it, until the service has;
 * - `width`, `height`: of the upright original, pixels, which boxes are in;
 * - `answers`: what the service has said of it, by target and versus.
 */
export class Photo {
  constructor(name, { file, body = file, bitmap = null, width, height }) {
    Object.assign(this, { name, file, body, answers: new Map() });
    this.show(bitmap, width, height);
  }

  /** Show this picture for an original of that size. */
  show(bitmap, width, height) {
    Object.assign(this, { bitmap, width, height });
  }

  /** Whether the service sees another shape: some browsers leave some photos on their side. */
  differs({ width, height }) {
    return (this.width - this.height) * (width - height) < 0;
  }

  /** Take the picture that the service has decoded. */
  async take({ media_type: type, data }, { width, height }) {
    const picture = new Image();
    picture.src = `data:${type};base64,${data}`;
    await picture.decode();
    this.show(picture, width, height);
  }
}

/** Read a file; rejects where it cannot be read (a folder; a file that is gone). */
export async function read(file) {
  const bytes = new Blob([await file.arrayBuffer()]);
  const bitmap = await createImageBitmap(bytes, { imageOrientation: "from-image" })
    .catch(() => null);
  if (!bitmap) return new Photo(file.name, { file: bytes });
  const { width, height } = bitmap; // a bitmap that is closed has none
  const body = await scaled(bitmap) ?? bytes;
  return new Photo(file.name, { file: bytes, body, bitmap: await kept(bitmap), width, height });
}

/** The picture with its longest side at most `LONGEST_KEPT`: one of 48 megapixels takes 190 MB. */
async function kept(bitmap) {
  const scale = LONGEST_KEPT / Math.max(bitmap.width, bitmap.height);
  if (scale >= 1) return bitmap;
  const smaller = await createImageBitmap(bitmap, {
    resizeWidth: Math.max(1, Math.round(bitmap.width * scale)),
    resizeHeight: Math.max(1, Math.round(bitmap.height * scale)),
    resizeQuality: "high",
  });
  bitmap.close();
  return smaller;
}

/** The picture as a JPEG of at most `LONGEST`; null where it is no larger. */
async function scaled(bitmap) {
  const scale = LONGEST / Math.max(bitmap.width, bitmap.height);
  if (scale >= 1) return null;
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff"; // behind what is transparent, as in the service
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => { canvas.toBlob(resolve, "image/jpeg", QUALITY); });
}
