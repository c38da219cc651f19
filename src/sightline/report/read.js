// The blinded reader: one question at a time, ratings kept in this tab, saved as CSV by a button.
(() => {
  const desk = document.getElementById("desk");
  if (!desk) return;
  const items = [...document.querySelectorAll("template.item")].map((item) => item.content.firstElementChild);
  const columns = desk.dataset.columns.split(",");
  const [slot, note, reader] = ["read-item", "read-comment", "read-name"].map((id) => document.getElementById(id));
  const radios = [...desk.querySelectorAll("input[type=radio]")];
  const memory = `sightline-${desk.dataset.set}`;
  const kept = recall();
  let place = 0;
  let unsaved = false;

  // A file's own storage may be closed to it; then ratings live as long as the page does.
  function recall() {
    try {
      return JSON.parse(sessionStorage.getItem(memory)) || { reader: "", ratings: {} };
    } catch {
      return { reader: "", ratings: {} };
    }
  }

  function keep() {
    unsaved = true;
    try {
      sessionStorage.setItem(memory, JSON.stringify(kept));
    } catch {
      // nothing to do: beforeunload warns
    }
  }

  function rating() {
    return (kept.ratings[place] = kept.ratings[place] || {});
  }

  function show(next) {
    place = Math.min(Math.max(next, 0), items.length - 1);
    const item = items[place];
    const pictures = item.querySelector(".pictures");
    const card = cards[Number(item.dataset.case)];
    if (!pictures.firstChild && card) pictures.append(card.querySelector(".zoom").cloneNode(true));
    slot.replaceChildren(item);
    fill();
  }

  function fill() {
    const now = kept.ratings[place] || {};
    for (const radio of radios) radio.checked = now[radio.name] === radio.value;
    note.value = now.comment || "";
    const rated = Object.values(kept.ratings).filter((each) => each.better).length;
    document.getElementById("read-place").textContent = `${place + 1} of ${items.length}, ${rated} rated`;
  }

  function rate(name, value) {
    if (value) rating()[name] = value;
    else delete rating()[name];
    keep();
    fill();
  }

  function turn(name) {
    const now = rating()[name];
    rate(name, now === undefined ? "yes" : now === "yes" ? "no" : "");
  }

  const keys = {
    a: () => rate("better", "a"), b: () => rate("better", "b"), t: () => rate("better", "tie"),
    1: () => turn("correct_a"), 2: () => turn("correct_b"), 3: () => turn("harmful_a"), 4: () => turn("harmful_b"),
    n: () => show(place + 1), p: () => show(place - 1), c: () => note.focus(),
  };

  function csv() {
    const cell = (value) => `"${String(value ?? "").replace(/\s+/g, " ").replace(/"/g, '""')}"`;
    const lines = [columns.join(",")];
    items.forEach((item, number) => {
      const own = kept.ratings[number];
      if (!own || !Object.keys(own).some((name) => name !== "opened")) return;
      const known = {
        ...own, set: desk.dataset.set, reader: kept.reader, place: number + 1, sample: item.dataset.sample,
        turn: item.dataset.turn,
      };
      lines.push(columns.map((name) => cell(known[name])).join(","));
    });
    return `${lines.join("\r\n")}\r\n`;
  }

  function save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    link.download = `ratings-${desk.dataset.set}-${kept.reader.replace(/[^\w-]/g, "") || "reader"}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    unsaved = false;
  }

  function read(on) {
    document.body.classList.toggle("reading", on);
    desk.hidden = !on;
    if (on) {
      show(place);
      desk.focus();
    } else {
      document.getElementById("start").focus();
    }
  }

  desk.addEventListener("keydown", (event) => {
    const typing = event.target === note || event.target === reader;
    if (typing && event.key === "Escape") desk.focus();
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  for (const radio of radios) radio.addEventListener("change", () => rate(radio.name, radio.value));
  note.addEventListener("input", () => {
    rating().comment = note.value;
    keep();
  });
  reader.value = kept.reader;
  reader.addEventListener("input", () => {
    kept.reader = reader.value.trim();
    keep();
  });
  slot.addEventListener("toggle", (event) => {
    if (!event.target.open) return;
    rating().opened = "yes";
    keep();
  }, true);
  document.getElementById("read-next").addEventListener("click", () => show(place + 1));
  document.getElementById("read-previous").addEventListener("click", () => show(place - 1));
  document.getElementById("read-save").addEventListener("click", save);
  document.getElementById("read-leave").addEventListener("click", () => read(false));
  document.getElementById("start").addEventListener("click", () => read(true));
  document.getElementById("start").parentElement.hidden = false;
  window.addEventListener("beforeunload", (event) => {
    if (unsaved) event.preventDefault();
  });
})();
