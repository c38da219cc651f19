// Makes one element of the page.
export function part(tag, attributes = {}, ...inside) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...inside);
  return element;
}

// A slider with its label; key: of the label's text.
export function slider(id, key, least, most, value, step) {
  const input = part("input", { type: "range", id, min: least, max: most, step, value });
  return [part("label", { for: id, "data-say": key }), input];
}
