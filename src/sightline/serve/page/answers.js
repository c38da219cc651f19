// Cards of answers: what was asked and said, how sure that is; and the reports that were found for the image.
import { part } from "/page/parts.js";
import { say } from "/page/words.js";

// Of each card: what the model sees, whether it is the model before, and the card that it is compared with.
export const KINDS = {
  seen: { image: "clean", before: false, partner: "before" }, before: { image: "clean", before: true },
  unseen: { image: "black", before: false, partner: "unbefore", twin: "seen" }, unbefore: { image: "black", before: true, twin: "before" },
};

const percent = (value) => (100 * value).toFixed(1);

export class Card {
  // kind: of KINDS; name: of the model, "" where there is only one
  constructor(kind, name) {
    Object.assign(this, { kind, name });
    this.parts = Object.fromEntries(["asked", "text", "verdict", "sure", "same"].map((key) => [key, part("p", { class: key })]));
    this.parts.text.setAttribute("aria-live", "polite");
    const by = part("p", { class: "by" }, name);
    by.hidden = !name;
    this.home = part("article", { id: kind, "aria-labelledby": `${kind}-title`, hidden: "" },
      part("h3", { id: `${kind}-title`, "data-say": kind }), by, ...Object.values(this.parts));
    this.known = null;
  }

  begin(question) {
    this.known = null;
    this.home.hidden = false;
    delete this.home.dataset.verdict;
    for (const each of Object.values(this.parts)) each.textContent = "";
    this.parts.asked.textContent = question;
    this.parts.text.setAttribute("aria-busy", "true");
  }

  hear(piece) {
    this.parts.text.textContent += piece;
  }

  end(known) {
    this.known = known && { ...known, answer: this.parts.text.textContent };
    this.parts.text.removeAttribute("aria-busy");
  }

  forget() {
    this.known = null;
    this.home.hidden = true;
  }

  // twin: what is known of the answer with the image, for a card without
  judge(twin) {
    if (!this.known) return;
    const { confidence, kind: of, verdict, threshold } = this.known.sure;
    const behind = threshold === undefined ? "" : ` (${say("threshold", percent(threshold))})`;
    this.parts.sure.textContent = confidence === null ? "" : say(of, percent(confidence)) + behind;
    if (KINDS[this.kind].image === "clean") {
      this.parts.verdict.textContent = say(verdict);
      this.home.dataset.verdict = verdict;
    } else if (twin && twin.question === this.known.question) {
      this.parts.same.textContent = say(twin.answer === this.known.answer ? "same" : "other");
    }
  }

  lines() {
    if (!this.known) return [];
    const told = ["verdict", "sure", "same"].map((key) => this.parts[key].textContent).filter(Boolean);
    return ["", [say(this.kind), this.name].filter(Boolean).join(", "), this.known.question, this.known.answer, ...told];
  }
}

export class Found {
  constructor() {
    this.list = part("ol");
    this.none = part("p", { "data-say": "none_found" });
    this.home = part("article", { id: "found", "aria-labelledby": "found-title", hidden: "" },
      part("h3", { id: "found-title", "data-say": "found" }), part("p", { class: "hint", "data-say": "found_hint" }), this.none, this.list);
  }

  // reports: of an answer; undefined where none were looked for
  show(reports) {
    this.home.hidden = !reports;
    this.none.hidden = Boolean(reports?.length);
    this.list.replaceChildren(...(reports ?? []).map((each) => {
      const facts = [say("similarity", each.similarity.toFixed(3)), each.behind > 1 ? say("behind", each.behind) : ""].filter(Boolean);
      const badge = part("span", { class: "badge" }, say("in_prompt"));
      badge.hidden = !each.in_prompt;
      return part("li", {}, part("p", { class: "facts" }, `${facts.join(" · ")} `, badge), part("p", { class: "report" }, each.text));
    }));
  }

  lines() {
    if (this.home.hidden) return [];
    return ["", say("found"), ...[...this.list.children].map((line) => line.innerText.replace(/\s*\n\s*/g, ": "))];
  }
}
