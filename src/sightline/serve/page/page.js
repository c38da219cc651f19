// The page: two images, a question or a report, the answer with how sure it is, and what it would be without the image.
import { ask, Refusal } from "/page/stream.js";
import { Viewer } from "/page/viewer.js";
import { preferred, say, speak } from "/page/words.js";

const find = (id) => document.getElementById(id);
const about = await (await fetch("/page/about.json")).json();
const state = { problem: [], status: "", seen: null, unseen: null, abort: null };

function tell(key, ...values) {
  state.problem = key ? [key, ...values] : [];
  find("problem").textContent = key ? say(key, ...values) : "";
}

function report(key) {
  state.status = key;
  find("status").textContent = key ? say(key) : "";
}

const viewers = ["current", "prior"].map((when) => new Viewer(find(`slot-${when}`), when, about.limits, tell));

function isReport() {
  return find("mode-report").checked;
}

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
  document.querySelector("label[for=question]").textContent = say(isReport() ? "report" : "question");
  tell(...state.problem);
  report(state.status);
  for (const kind of ["seen", "unseen"]) if (state[kind]) judge(kind);
}

function request(image) {
  const shown = viewers.filter((viewer) => viewer.url);
  const parts = shown.map((viewer) => ({ type: "image_url", image_url: { url: viewer.url }, when: viewer.when }));
  const content = [...parts, { type: "text", text: find("question").value.trim() }];
  return { model: about.model, messages: [{ role: "user", content }], sightline: { image }, max_tokens: isReport() ? 256 : 64 };
}

function idle(yes) {
  find("ask").disabled = find("blind").disabled = !yes;
  find("stop").disabled = yes;
}

async function run(kind) {
  if (!viewers[0].url) return tell("no_image");
  if (!find("question").value.trim()) return tell("no_question");
  tell("");
  if (kind === "seen") forget("unseen");
  const card = find(kind), text = card.querySelector(".text");
  card.hidden = false;
  card.querySelector(".asked").textContent = find("question").value.trim();
  for (const part of card.querySelectorAll(".text, .verdict, .sure, .same")) part.textContent = "";
  text.setAttribute("aria-busy", "true");
  state[kind] = null;
  state.abort = new AbortController();
  idle(false);
  report("working");
  try {
    const end = await ask(request(kind === "seen" ? "clean" : "black"), state.abort.signal, (piece) => { text.textContent += piece; });
    state[kind] = { question: find("question").value.trim(), mode: isReport() ? "report" : "question", answer: text.textContent, ...end };
    report(end.reason === "length" ? "cut" : "done");
    judge(kind);
  } catch (error) {
    fail(error);
  } finally {
    text.removeAttribute("aria-busy");
    idle(true);
    find("copy").disabled = find("export").disabled = !(state.seen || state.unseen);
  }
}

function fail(error) {
  report("");
  if (error.name === "AbortError") return report("stopped");
  if (!(error instanceof Refusal)) return tell("lost");
  if (error.status === 401) return tell("signed_out");
  if (error.status === 429 || error.status === 503) return tell("busy", error.after ?? "60");
  return tell("refused", error.message);
}

function forget(kind) {
  state[kind] = null;
  find(kind).hidden = true;
}

function judge(kind) {
  const known = state[kind], card = find(kind);
  const percent = (value) => (100 * value).toFixed(1);
  const { confidence, kind: of, verdict, threshold } = known.sure;
  const behind = threshold === undefined ? "" : ` (${say("threshold", percent(threshold))})`;
  card.querySelector(".sure").textContent = confidence === null ? "" : say(of, percent(confidence)) + behind;
  if (kind === "seen") {
    card.querySelector(".verdict").textContent = say(verdict);
    card.dataset.verdict = verdict;
  } else if (state.seen && state.seen.question === known.question) {
    card.querySelector(".same").textContent = say(state.seen.answer === known.answer ? "same" : "other");
  }
}

function result() {
  const made = { notice: about.notice, model: about.model, model_sha256: about.model_sha256, version: about.version };
  made.images = viewers.filter((viewer) => viewer.url).map((viewer) => viewer.when);
  for (const [name, kind] of [["answer", "seen"], ["blind", "unseen"]]) if (state[kind]) made[name] = state[kind];
  return made;
}

function plain() {
  const lines = [say("notice"), `${about.model} ${about.model_sha256.slice(0, 16)}`];
  for (const kind of ["seen", "unseen"]) {
    if (!state[kind]) continue;
    const card = find(kind);
    lines.push("", say(kind), state[kind].question, state[kind].answer);
    for (const part of card.querySelectorAll(".verdict, .sure, .same")) if (part.textContent) lines.push(part.textContent);
  }
  return lines.join("\n");
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
  document.querySelector("label[for=question]").textContent = say(isReport() ? "report" : "question");
  suggest();
}

find("model").textContent = about.model;
find("hash").textContent = about.model_sha256.slice(0, 16);
find("version").textContent = about.version;
find("form").addEventListener("submit", (event) => { event.preventDefault(); run("seen"); });
find("blind").addEventListener("click", () => run("unseen"));
find("stop").addEventListener("click", () => state.abort?.abort());
find("copy").addEventListener("click", copy);
find("export").addEventListener("click", save);
find("language").addEventListener("change", () => change(find("language").value));
for (const radio of document.querySelectorAll("[name=mode]")) radio.addEventListener("change", mode);
document.addEventListener("changed", () => { forget("seen"); forget("unseen"); find("copy").disabled = find("export").disabled = true; });
for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => event.preventDefault());
suggest();
change(preferred());
document.body.dataset.ready = "yes";
