// On a narrow screen site.css shows each row of a wide table as a block of its own; each cell needs its heading for that.
for (const table of document.querySelectorAll("table.docutils")) {
  const headings = [...table.querySelectorAll("thead th")].map((cell) => cell.textContent.trim());
  if (headings.length < 3 || table.querySelector(".text-right")) continue; // columns of numbers are narrow
  table.classList.add("wide");
  for (const row of table.querySelectorAll("tbody tr")) {
    [...row.cells].forEach((cell, column) => (cell.dataset.heading = headings[column]));
  }
}
