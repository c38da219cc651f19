"use strict";
(() => {
  const bar = document.querySelector(".filters");
  const viewer = document.getElementById("viewer");

  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
  if (!bar) return;

  const buttons = [...bar.querySelectorAll("button[data-filter]")];
  const finding = document.getElementById("finding");
  const cards = [...document.querySelectorAll(".card")];
  let state = "all";

  function show() {
    const topic = finding ? finding.value : "";
    let shown = 0;
    for (const card of cards) {
      let matches = state === "all" && topic === "";
      for (const turn of card.querySelectorAll("tr[data-topic]")) {
        const about = topic === "" || turn.dataset.topic === topic;
        turn.hidden = !about;
        if (about && (state === "all" || (turn.dataset.state || "").split(" ").includes(state))) matches = true;
      }
      card.hidden = !matches;
      if (matches) shown += 1;
    }
    document.getElementById("count").textContent = `${shown} of ${cards.length} cases`;
  }

  for (const button of buttons) {
    button.addEventListener("click", () => {
      state = button.dataset.filter;
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      show();
    });
  }
  if (finding) finding.addEventListener("change", show);

  // An address that ends in #cases=errors or #cases=fixed,effusion_left opens the gallery filtered.
  function follow() {
    const match = /^#cases=([a-z]+)(?:,(.*))?$/.exec(location.hash);
    if (!match) return;
    if (finding && match[2] !== undefined) finding.value = decodeURIComponent(match[2]);
    const button = buttons.find((b) => b.dataset.filter === match[1]);
    if (button) button.click();
    document.getElementById("cases").scrollIntoView();
  }
  window.addEventListener("hashchange", follow);

  for (const zoom of document.querySelectorAll(".zoom")) {
    zoom.addEventListener("click", () => {
      const image = zoom.querySelector("img");
      const large = document.getElementById("large");
      large.src = image.src;
      large.alt = image.alt;
      document.getElementById("what").textContent = image.alt;
      viewer.showModal();
    });
  }
  viewer.addEventListener("click", (event) => {
    if (event.target !== viewer && event.target.id !== "close") return;
    viewer.close();
  });

  bar.hidden = false;
  follow();
})();
