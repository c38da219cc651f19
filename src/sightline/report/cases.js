// The gallery: filters by state and finding, doors from counts to their cases, and more cases on demand.
// An address that ends in #cases=broken, #cases=errors,nodule, #cases=1fp,nodule or #case=7 opens it filtered.
(() => {
  const bar = document.querySelector(".filters");
  if (!bar) return;
  const home = document.querySelector("#cases .cards");
  const step = Number(home.dataset.step);
  const buttons = [...bar.querySelectorAll("button[data-filter]")];
  const finding = document.getElementById("finding");
  const whole = document.getElementById("whole");
  const drill = document.getElementById("drill");
  const more = document.getElementById("more");
  const [models, kinds] = [JSON.parse(bar.dataset.models), JSON.parse(bar.dataset.kinds)];
  let state = { kind: "all", only: null, limit: step };

  function fits(row, topic) {
    if (state.kind === "all" && topic === "") return true;
    return row.dataset.marks.split("\n").some((mark) => {
      const cut = mark.indexOf("@");
      return mark.slice(0, cut) === state.kind && (topic === "" || mark.slice(cut + 1) === topic);
    });
  }

  function name() {
    if (state.only !== null) return cards[state.only].querySelector("h3").textContent;
    const parts = /^(\d+)([a-z]+)$/.exec(state.kind);
    return parts ? `${kinds[parts[2]]}, ${models[parts[1]]}` : "";
  }

  function show() {
    const topic = finding ? finding.value : "";
    const found = [];
    let answers = 0;
    cards.forEach((card, place) => {
      const rows = [...card.querySelectorAll("tr[data-marks]")];
      const fitting = rows.filter((row) => fits(row, topic));
      for (const row of rows) row.hidden = !whole.checked && !fitting.includes(row);
      const all = state.kind === "all" && topic === "";
      if (state.only === null ? all || fitting.length : place === state.only) {
        found.push(card);
        answers += fitting.length;
      }
    });
    home.replaceChildren(...found.slice(0, state.limit));
    more.hidden = found.length <= state.limit;
    document.getElementById("count").textContent = `${found.length} of ${cards.length} cases, ${answers} answers`;
    drill.textContent = `${name()} ×`;
    drill.hidden = name() === "";
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(state.only === null && button.dataset.filter === state.kind));
    }
  }

  function choose(kind, topic, only = null) {
    state = { kind, only, limit: step };
    if (finding && topic !== undefined) finding.value = topic;
    show();
  }

  function follow() {
    const match = /^#cases=([0-9a-z]+)(?:,(.*))?$/.exec(location.hash);
    const one = /^#case=(\d+)$/.exec(location.hash);
    if (!match && !one) return;
    if (one) choose("all", "", Number(one[1]) < cards.length ? Number(one[1]) : null);
    else choose(match[1], decodeURIComponent(match[2] || ""));
    document.getElementById("cases").scrollIntoView();
    const heading = document.getElementById("cases-title");
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  }

  for (const button of buttons) button.addEventListener("click", () => choose(button.dataset.filter));
  drill.addEventListener("click", () => choose("all", ""));
  if (finding) finding.addEventListener("change", () => choose(state.kind));
  whole.addEventListener("change", show);
  more.addEventListener("click", () => {
    state.limit += step;
    show();
  });
  window.addEventListener("hashchange", follow);
  // A second press on the same count changes no address, so it is followed here.
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#case"]');
    if (link && link.hash === location.hash) follow();
  });
  bar.hidden = false;
  show();
  follow();
})();
