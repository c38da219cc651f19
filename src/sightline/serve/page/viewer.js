// One image place: take a file by choice or by drop, show it in a window, zoomed and moved by mouse or keyboard.
import { say } from "/page/words.js";

const TYPES = ["image/png", "image/jpeg"];
const STEP = 24;

function part(tag, attributes = {}, ...inside) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...inside);
  return element;
}

function slider(id, key, least, most, value, step) {
  const input = part("input", { type: "range", id, min: least, max: most, step, value });
  return [part("label", { for: id, "data-say": key }), input];
}

export class Viewer {
  // when: "current" or "prior"; limits: of the server; told: called with the key of a message and its values
  constructor(home, when, limits, told) {
    Object.assign(this, { home, when, limits, told, url: "", file: "", bitmap: null, at: [0, 0] });
    const id = (name) => `${when}-${name}`;
    this.input = part("input", { type: "file", id: id("file"), accept: TYPES.join(","), "aria-describedby": id("drop") });
    this.canvas = part("canvas", { id: id("canvas"), width: 512, height: 512, tabindex: 0, role: "img", "aria-describedby": id("moves"), "data-name": when });
    const [centreLabel, centre] = slider(id("centre"), "centre", 0, 255, 128, 1);
    const [widthLabel, width] = slider(id("width"), "width", 1, 510, 255, 1);
    const [zoomLabel, zoom] = slider(id("zoom"), "zoom", 1, 8, 1, 0.1);
    Object.assign(this, { centre, width, zoom });
    this.size = part("span", { class: "size" });
    this.remove = part("button", { type: "button", id: id("remove"), "data-say": "remove" });
    this.again = part("button", { type: "button", id: id("reset"), "data-say": "reset" });
    this.shown = part("div", { class: "shown", hidden: "" },
      this.canvas, part("p", { id: id("moves"), class: "hint", "data-say": "moves" }),
      part("div", { class: "sliders", role: "group", "data-name": "view" }, centreLabel, centre, widthLabel, width, zoomLabel, zoom),
      part("p", { class: "buttons" }, this.again, this.remove, this.size));
    home.append(part("h3", { "data-say": when }),
      part("div", { class: "drop" }, this.input, part("label", { for: id("file"), "data-say": "choose" }),
        part("span", { id: id("drop"), class: "hint", "data-say": "drop" })),
      this.shown);
    this.listen();
  }

  listen() {
    this.input.addEventListener("change", () => this.input.files[0] && this.take(this.input.files[0]));
    this.home.addEventListener("dragover", (event) => { event.preventDefault(); this.home.classList.add("over"); });
    this.home.addEventListener("dragleave", () => this.home.classList.remove("over"));
    this.home.addEventListener("drop", (event) => {
      event.preventDefault();
      this.home.classList.remove("over");
      if (event.dataTransfer.files[0]) this.take(event.dataTransfer.files[0]);
    });
    for (const each of [this.centre, this.width, this.zoom]) each.addEventListener("input", () => this.draw());
    this.again.addEventListener("click", () => this.reset());
    this.remove.addEventListener("click", () => { this.clear(); this.input.focus(); });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("pointerdown", (event) => { this.held = [event.clientX, event.clientY]; this.canvas.setPointerCapture(event.pointerId); });
    this.canvas.addEventListener("pointermove", (event) => this.held && this.drag(event));
    this.canvas.addEventListener("pointerup", () => { this.held = null; });
  }

  async take(file) {
    if (!TYPES.includes(file.type)) return this.refuse("bad_type");
    if (file.size > this.limits.bytes) return this.refuse("too_large");
    try {
      const bitmap = await createImageBitmap(file);
      if (bitmap.width * bitmap.height > this.limits.pixels) return this.refuse("too_large");
      this.bitmap = bitmap;
    } catch { return this.refuse("bad_image"); }
    this.url = await new Promise((done) => {
      const reader = new FileReader();
      reader.addEventListener("load", () => done(reader.result));
      reader.readAsDataURL(file);
    });
    this.shown.hidden = false;
    this.told("");
    this.reset();
    this.home.dispatchEvent(new CustomEvent("changed", { bubbles: true }));
  }

  refuse(key) {
    this.clear();
    this.told(key);
  }

  clear() {
    Object.assign(this, { url: "", bitmap: null });
    this.input.value = "";
    this.shown.hidden = true;
    this.home.dispatchEvent(new CustomEvent("changed", { bubbles: true }));
  }

  reset() {
    [this.centre.value, this.width.value, this.zoom.value, this.at] = [128, 255, 1, [0, 0]];
    this.draw();
  }

  drag(event) {
    const scale = this.canvas.width / this.canvas.clientWidth;
    this.at = this.at.map((value, i) => value + ([event.clientX, event.clientY][i] - this.held[i]) * scale);
    this.held = [event.clientX, event.clientY];
    this.draw();
  }

  key(event) {
    const moves = { ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] };
    if (event.key in moves) this.at = this.at.map((value, i) => value + moves[event.key][i]);
    else if (event.key === "+" || event.key === "=") this.zoom.value = Number(this.zoom.value) + 0.5;
    else if (event.key === "-") this.zoom.value = Number(this.zoom.value) - 0.5;
    else if (event.key === "0") return this.reset();
    else return;
    event.preventDefault();
    this.draw();
  }

  draw() {
    if (!this.bitmap) return;
    const { canvas, bitmap } = this;
    this.size.textContent = say("shown", bitmap.width, bitmap.height);
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    const scale = Math.min(canvas.width / bitmap.width, canvas.height / bitmap.height) * Number(this.zoom.value);
    const [width, height] = [bitmap.width * scale, bitmap.height * scale];
    this.at = this.at.map((value, i) => {
      const free = Math.max(0, ([width, height][i] - [canvas.width, canvas.height][i]) / 2);
      return Math.min(free, Math.max(-free, value));
    });
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(bitmap, (canvas.width - width) / 2 + this.at[0], (canvas.height - height) / 2 + this.at[1], width, height);
    const [centre, span] = [Number(this.centre.value), Number(this.width.value)];
    if (centre === 128 && span === 255) return;
    const table = Uint8ClampedArray.from({ length: 256 }, (_, v) => ((v - centre) / span + 0.5) * 255);
    const pixels = pen.getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < pixels.data.length; i += 4) {
      for (let c = 0; c < 3; c += 1) pixels.data[i + c] = table[pixels.data[i + c]];
    }
    pen.putImageData(pixels, 0, 0);
  }
}
