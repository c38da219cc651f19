// The page: two images, a question or a report, the answer with how sure it is and with similar reports, what another
// model says, and what both say without the image.
import { Card, Found, KINDS } from "/page/answers.js";
import { ask, Refusal } from "/page/stream.js";
import { Viewer } from "/page/viewer.js";
import { preferred, say, speak } from "/page/words.js";

const find = (id) => document.getElementById(id);
const about = await (await fetch("/page/about.json")).json();
const state = { problem: [], status: "", abort: null };

function tell(key, ...values) {
  state.problem = key ? [key, ...values] : [];
  find("problem").textContent = key ? say(key, ...values) : "";
}

function report(key) {
  state.status = key;
  find("status").textContent = key ? say(key) : "";
}

function fail(error) {
  report("");
  if (error.name === "AbortError") return report("stopped");
  if (!(error instanceof Refusal)) return tell("lost");
  if (error.status === 401) return tell("signed_out");
  if (error.status === 429 || error.status === 503) return tell("busy", error.after ?? "60");
  return tell("refused", error.message);
}

const viewers = ["current", "prior"].map((when) => new Viewer(find(`slot-${when}`), when, about.limits, { tell, report, fail }));
const name = (kind) => (KINDS[kind].before ? about.before?.model ?? "" : about.model);
const cards = Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, new Card(kind, about.before ? name(kind) : "")]));
const found = new Found();

const isReport = () => find("mode-report").checked;
const isCompared = () => Boolean(about.before) && find("compare").checked;
const answered = () => Object.values(cards).some((card) => card.known);

function suggest() {
  const box = find("suggestions");
  box.hidden = isReport() || !(about.questions ?? []).length;
  box.querySelector(".chips").replaceChildren(...(about.questions ?? []).map((text) => {
    const chip = document.createElement("button");
    Object.assign(chip, { type: "button", textContent: text });
    chip.addEventListener("click", () => { find("question").value = text; find("ask").focus(); });
    return chip;
  }));
}

function change(language) {
  speak(language);
  find("language").value = document.documentElement.lang;
  for (const viewer of viewers) viewer.draw();
  label();
  find("compare-say").textContent = say("compare", about.before?.model ?? "");
  find("reports-say").textContent = say(about.reports?.read ? "reports_read" : "reports_beside");
  tell(...state.problem);
  report(state.status);
  judge();
}

function label() {
  document.querySelector("label[for=question]").textContent = say(isReport() ? "report" : "question");
}

function judge() {
  for (const [kind, card] of Object.entries(cards)) card.judge(cards[KINDS[kind].twin]?.known);
  found.show(cards.seen.known?.reports);
}

function request(kind) {
  const shown = viewers.filter((viewer) => viewer.url);
  const parts = shown.map((viewer) => ({ type: "image_url", image_url: { url: viewer.url }, when: viewer.when }));
  const content = [...parts, { type: "text", text: find("question").value.trim() }];
  const own = { image: KINDS[kind].image };
  if (about.reports) Object.assign(own, { reports: find("reports").checked, kind: isReport() ? "report" : "question" });
  return { model: name(kind), messages: [{ role: "user", content }], sightline: own, max_tokens: isReport() ? 256 : 64 };
}

function idle(yes) {
  find("ask").disabled = find("blind").disabled = !yes;
  find("stop").disabled = yes;
}

function forget() {
  for (const card of Object.values(cards)) card.forget();
  found.show();
  find("copy").disabled = find("export").disabled = true;
}

// Another image: what is being said of the one before is not waited for, and what was said of it is gone.
function changed() {
  state.abort?.abort();
  forget();
}

async function run(first) {
  if (!viewers[0].url) return tell("no_image");
  if (!find("question").value.trim()) return tell("no_question");
  tell("");
  const kinds = isCompared() ? [first, KINDS[first].partner] : [first];
  if (first === "seen") forget();
  else cards[KINDS[first].partner].forget();
  state.abort = new AbortController();
  idle(false);
  report("working");
  const done = await Promise.allSettled(kinds.map((kind) => answer(kind)));
  idle(true);
  judge();
  find("copy").disabled = find("export").disabled = !answered();
  const failed = done.find((each) => each.status === "rejected");
  if (failed) fail(failed.reason);
  else report(done.some((each) => each.value === "length") ? "cut" : "done");
}

async function answer(kind) {
  const card = cards[kind], question = find("question").value.trim(), mode = isReport() ? "report" : "question";
  card.begin(question);
  let known = null;
  try {
    const end = await ask(request(kind), state.abort.signal, (piece) => card.hear(piece));
    known = { question, mode, model: name(kind), ...end };
  } finally {
    card.end(known);
  }
  return known.reason;
}

function result() {
  const made = { notice: about.notice, model: about.model, model_sha256: about.model_sha256, version: about.version };
  const shown = viewers.filter((viewer) => viewer.url);
  made.images = shown.map((viewer) => viewer.when);
  const slices = shown.filter((viewer) => viewer.volume).map((viewer) => [viewer.when, viewer.place()]);
  if (slices.length) made.slices = Object.fromEntries(slices);
  for (const [key, kind] of [["answer", "seen"], ["before", "before"], ["blind", "unseen"], ["before_blind", "unbefore"]]) {
    if (cards[kind].known) made[key] = cards[kind].known;
  }
  return made;
}

function plain() {
  const lines = Object.values(cards).flatMap((card) => card.lines());
  return [say("notice"), `${about.model} ${about.model_sha256.slice(0, 16)}`, ...lines, ...found.lines()].join("\n");
}

async function copy() {
  try {
    await navigator.clipboard.writeText(plain());
  } catch {  // without a secure address browsers offer only the old way
    const area = document.createElement("textarea");
    area.value = plain();
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    find("copy").focus();
  }
  report("copied");
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(result(), null, 1)], { type: "application/json" }));
  link.download = "sightline-answer.json";
  link.click();
  URL.revokeObjectURL(link.href);
  report("saved");
}

function mode() {
  if (isReport()) find("question").value = about.report || say("report_text");
  else if (find("question").value === (about.report || say("report_text"))) find("question").value = "";
  label();
  suggest();
}

find("answers").append(...Object.values(cards).map((card) => card.home), found.home);
find("model").textContent = about.model;
find("hash").textContent = about.model_sha256.slice(0, 16);
find("version").textContent = about.version;
find("compare-line").hidden = !about.before;
find("reports-line").hidden = !about.reports;
find("more").hidden = !about.before && !about.reports;
find("form").addEventListener("submit", (event) => { event.preventDefault(); run("seen"); });
find("blind").addEventListener("click", () => run("unseen"));
find("stop").addEventListener("click", () => state.abort?.abort());
find("copy").addEventListener("click", copy);
find("export").addEventListener("click", save);
find("language").addEventListener("change", () => change(find("language").value));
for (const radio of document.querySelectorAll("[name=mode]")) radio.addEventListener("change", mode);
document.addEventListener("changed", changed);
for (const each of ["dragover", "drop"]) document.addEventListener(each, (event) => event.preventDefault());
suggest();
change(preferred());
document.body.dataset.ready = "yes";
