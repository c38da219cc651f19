// A volume that the server has read: its voxels, and slices of them as pictures.
import { Refusal } from "/page/stream.js";

const LONGEST = 1024;
// Axes of a plane: 0 leads to the patient's right, 1 to the front, 2 to the head. Slices are drawn against them, as
// radiologists look at them: the patient's right on the left side, front and head above.
export const PLANES = {
  axial: { across: 0, down: 1, through: 2 }, coronal: { across: 0, down: 2, through: 1 }, sagittal: { across: 1, down: 2, through: 0 },
};

export class Volume {
  constructor(voxels, shape, spacing, times) {
    Object.assign(this, { voxels, shape, spacing, times, steps: [shape[1] * shape[2], shape[2], 1] });
  }

  // The plane that was scanned: across it the voxels are thickest.
  plane() {
    const thickness = (name) => this.spacing[PLANES[name].through];
    return Object.keys(PLANES).reduce((best, name) => (thickness(name) > thickness(best) * 1.01 ? name : best));
  }

  count(plane) {
    return this.shape[PLANES[plane].through];
  }

  // One slice as a canvas whose pixels are as wide as high.
  slice(plane, number) {
    const { across, down, through } = PLANES[plane];
    const [width, height] = [this.shape[across], this.shape[down]];
    const image = new ImageData(width, height);
    for (let row = 0, at = 0; row < height; row += 1) {
      const start = number * this.steps[through] + (height - 1 - row) * this.steps[down];
      for (let column = width - 1; column >= 0; column -= 1, at += 4) {
        const grey = this.voxels[start + column * this.steps[across]];
        image.data.set([grey, grey, grey, 255], at);
      }
    }
    return this.square(image, across, down);
  }

  square(image, across, down) {
    const small = canvas(image.width, image.height);
    small.getContext("2d").putImageData(image, 0, 0);
    const finest = Math.min(this.spacing[across], this.spacing[down]);
    const sides = [image.width * this.spacing[across], image.height * this.spacing[down]].map((mm) => mm / finest);
    const scale = Math.min(1, LONGEST / Math.max(...sides));
    const [width, height] = sides.map((side) => Math.max(1, Math.round(side * scale)));
    if (width === image.width && height === image.height) return small;
    const made = canvas(width, height), pen = made.getContext("2d");
    pen.imageSmoothingQuality = "high";
    pen.drawImage(small, 0, 0, width, height);
    return made;
  }
}

function canvas(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

// Have the server read a file; most: bytes that it takes.
export async function read(file, most) {
  const packed = /\.gz$/i.test(file.name) || file.size <= most;
  const body = packed ? file : await new Response(file.stream().pipeThrough(new CompressionStream("gzip"))).blob();
  if (body.size > most) throw new RangeError("too large");
  const answer = await fetch("/v1/volumes", { method: "POST", headers: { "content-type": "application/octet-stream" }, body });
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw new Refusal(answer.status, said.error?.message ?? "", answer.headers.get("retry-after"));
  }
  const numbers = (name) => answer.headers.get(`sightline-${name}`).split(",").map(Number);
  return new Volume(new Uint8Array(await answer.arrayBuffer()), numbers("shape"), numbers("spacing"), numbers("times")[0]);
}
