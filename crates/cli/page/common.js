// What the page of a node and the page of a network both need.
"use strict";

const element = (id) => document.getElementById(id);
const numbers = new Intl.NumberFormat("en");
const count = (value) => (value === null || value === undefined ? "–" : numbers.format(value));

// Adds a cell to a row of a table.
function cell(row, text, kind) {
  const made = document.createElement("td");
  made.textContent = text;
  if (kind) made.className = kind;
  row.append(made);
  return made;
}
