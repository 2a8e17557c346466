"use strict";
const number = (text) => {
  const found = /^[<>]?\s*(-?\d+(\.\d+)?(e[-+]?\d+)?)(?=$|[\s%[/])/i.exec(text.trim());
  return found ? Number(found[1]) : NaN;
};

function compare(one, other) {
  const [a, b] = [number(one), number(other)];
  if (!Number.isNaN(a) && !Number.isNaN(b)) return a - b;
  if (Number.isNaN(a) !== Number.isNaN(b)) return Number.isNaN(a) ? 1 : -1;
  return one.localeCompare(other);
}

function sortable(table) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const cell = (line) => line.cells[at].textContent;
      const lines = [...table.tBodies[0].rows].sort((a, b) => (down ? -1 : 1) * compare(cell(a), cell(b)));
      table.tBodies[0].append(...lines);
    });
  });
}

function unfold() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  target.scrollIntoView();
}

document.querySelectorAll("table.sortable").forEach(sortable);
addEventListener("hashchange", unfold);
unfold();
if (!matchMedia("(min-width: 68rem)").matches) document.querySelector(".contents details").open = false;
