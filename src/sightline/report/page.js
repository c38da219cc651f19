"use strict";
// Every case, in the report's order; those in templates are neither laid out nor decoded until they are shown.
const cards = [
  ...document.querySelectorAll("#cases .card"),
  ...[...document.querySelectorAll("template.spare")].map((spare) => spare.content.firstElementChild),
];

window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("section > details")) details.open = true;
});

const viewer = document.getElementById("viewer");
document.addEventListener("click", (event) => {
  const zoom = event.target.closest(".zoom");
  if (zoom) {
    const image = zoom.querySelector("img");
    const large = document.getElementById("large");
    large.src = image.src;
    large.alt = image.alt;
    document.getElementById("what").textContent = image.alt;
    viewer.showModal();
  } else if (event.target === viewer || event.target.id === "close") {
    viewer.close();
  }
});
