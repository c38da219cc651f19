// One image place: take a file by choice or by drop, show it in a window, zoomed and moved by mouse or keyboard.
import { part, slider } from "/page/parts.js";
import { PLANES, read } from "/page/volume.js";
import { say } from "/page/words.js";

const TYPES = ["image/png", "image/jpeg"];
const VOLUMES = /\.nii(\.gz)?$/i;
const STEP = 24;

export class Viewer {
  // when: "current" or "prior"; limits: of the server; page: tell(key, ...values), report(key), fail(error)
  constructor(home, when, limits, page) {
    Object.assign(this, { home, when, limits, page, url: "", bitmap: null, volume: null, turn: 0, at: [0, 0] });
    const id = (name) => `${when}-${name}`;
    const accept = [...TYPES, ".nii", ".nii.gz", ".gz"].join(",");
    this.input = part("input", { type: "file", id: id("file"), accept, "aria-describedby": id("drop") });
    this.canvas = part("canvas", { id: id("canvas"), width: 512, height: 512, tabindex: 0, role: "img", "aria-describedby": id("moves"), "data-name": when });
    const [centreLabel, centre] = slider(id("centre"), "centre", 0, 255, 128, 1);
    const [widthLabel, width] = slider(id("width"), "width", 1, 510, 255, 1);
    const [zoomLabel, zoom] = slider(id("zoom"), "zoom", 1, 8, 1, 0.1);
    const [numberLabel, number] = slider(id("slice"), "slice", 1, 1, 1, 1);
    this.plane = part("select", { id: id("plane") }, ...Object.keys(PLANES).map((name) => part("option", { value: name, "data-say": name })));
    Object.assign(this, { centre, width, zoom, number });
    this.size = part("span", { class: "size" });
    this.edges = part("p", { class: "hint edges" });
    this.remove = part("button", { type: "button", id: id("remove"), "data-say": "remove" });
    this.again = part("button", { type: "button", id: id("reset"), "data-say": "reset" });
    this.cuts = part("div", { class: "cuts", hidden: "" },
      part("div", { class: "sliders", role: "group", "data-name": "slices" }, part("label", { for: id("plane"), "data-say": "plane" }), this.plane, numberLabel, number),
      this.edges);
    this.shown = part("div", { class: "shown", hidden: "" },
      this.canvas, this.cuts, part("p", { id: id("moves"), class: "hint", "data-say": "moves" }),
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
    this.plane.addEventListener("change", () => this.turned());
    this.number.addEventListener("input", () => this.cut());
    this.again.addEventListener("click", () => this.reset());
    this.remove.addEventListener("click", () => { this.clear(); this.input.focus(); });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("pointerdown", (event) => { this.held = [event.clientX, event.clientY]; this.canvas.setPointerCapture(event.pointerId); });
    this.canvas.addEventListener("pointermove", (event) => this.held && this.drag(event));
    for (const each of ["pointerup", "pointercancel"]) this.canvas.addEventListener(each, () => { this.held = null; });
  }

  async take(file) {
    this.turn += 1;
    const turn = this.turn;
    const head = new Uint8Array(await file.slice(128, 132).arrayBuffer());
    if (String.fromCharCode(...head) === "DICM" || /\.dcm$/i.test(file.name)) return this.refuse("dicom");
    if (VOLUMES.test(file.name)) return this.takeVolume(file, turn);
    if (!TYPES.includes(file.type)) return this.refuse("bad_type");
    if (file.size > this.limits.bytes) return this.refuse("too_large");
    const bitmap = await createImageBitmap(file).catch(() => null);
    if (turn !== this.turn) return; // another file was chosen meanwhile
    if (!bitmap) return this.refuse("bad_image");
    if (bitmap.width * bitmap.height > this.limits.pixels) return this.refuse("too_large");
    const url = await new Promise((done) => {
      const reader = new FileReader();
      reader.addEventListener("load", () => done(reader.result));
      reader.readAsDataURL(file);
    });
    if (turn === this.turn) this.show({ bitmap, url, volume: null });
  }

  async takeVolume(file, turn) {
    this.page.tell("");
    this.page.report("reading");
    try {
      const volume = await read(file, this.limits.volume);
      if (turn !== this.turn) return;
      this.page.report("");
      this.plane.value = volume.plane();
      this.show({ volume });
      this.turned();
    } catch (error) {
      if (turn !== this.turn) return;
      this.clear();
      this.page.report("");
      if (error instanceof RangeError) this.page.tell("too_large");
      else this.page.fail(error);
    }
  }

  show(what) {
    Object.assign(this, what);
    this.shown.hidden = false;
    this.cuts.hidden = !this.volume;
    this.page.tell("");
    this.reset();
    this.changed();
  }

  // Another plane: begin in its middle.
  turned() {
    this.number.max = this.volume.count(this.plane.value);
    this.number.value = Math.ceil(this.number.max / 2);
    this.cut();
  }

  // Another slice: what the model is given is another image.
  cut() {
    this.bitmap = this.volume.slice(this.plane.value, Number(this.number.value) - 1);
    this.url = this.bitmap.toDataURL("image/png");
    this.draw();
    this.changed();
  }

  changed() {
    this.home.dispatchEvent(new CustomEvent("changed", { bubbles: true }));
  }

  // Which slice of a volume is shown; null of a picture.
  place() {
    return this.volume && { plane: this.plane.value, slice: Number(this.number.value), of: Number(this.number.max) };
  }

  refuse(key) {
    this.clear();
    this.page.tell(key);
  }

  clear() {
    Object.assign(this, { url: "", bitmap: null, volume: null, turn: this.turn + 1 });
    this.input.value = "";
    this.shown.hidden = true;
    this.changed();
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

  label() {
    const pixels = say("shown", this.bitmap.width, this.bitmap.height);
    const place = this.place();
    this.size.textContent = place ? `${say("slice_of", place.slice, place.of)} · ${pixels}` : pixels;
    if (!place) return;
    this.number.setAttribute("aria-valuetext", say("slice_of", place.slice, place.of));
    const { across, down } = PLANES[place.plane];
    const { times } = this.volume;
    const told = [say("edges", say(`side_${across}`), say(`side_${down}`)), say("slice_given"), times > 1 ? say("times", times) : ""];
    this.edges.textContent = told.filter(Boolean).join(" ");
  }

  draw() {
    if (!this.bitmap) return;
    const { canvas, bitmap } = this;
    this.label();
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
