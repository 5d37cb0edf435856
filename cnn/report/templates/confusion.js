// The confusion matrix, whose cells show their images in the explorer; of many classes, it is drawn here.
"use strict";
(() => {
  const {classes, confusion, shown} = page;
  // A single tab stop, with the arrow keys to move between cells.
  const table = document.querySelector(".confusion"), body = table.tBodies[0].rows, heads = table.tHead.rows[0].cells;
  const many = table.classList.contains("many"), summary = get("cell").textContent;
  const maxErrors = confusion.reduce((max, row, i) => row.reduce((most, count, j) => i === j ? most : Math.max(most, count), max), 1);
  const cellAt = (i, j) => j >= 0 ? body[i]?.cells[j + 1] : undefined;
  confusion.forEach((row, i) => row.forEach((count, j) => {
    const cell = many ? body[i].insertCell() : cellAt(i, j), share = count / maxErrors;
    if (many && count) cell.textContent = count;
    if (many && i === j) cell.className = "diagonal";
    // Without numbers, one error is as visible as many.
    if (i !== j && (count || !many)) cell.style.setProperty("--share", many ? 0.25 + 0.75 * Math.sqrt(share) : share);
  }));
  if (body.length) cellAt(0, 0).tabIndex = 0;
  // Of many classes, as many names are shown as fit.
  function fitCells() {
    const side = Math.max(3, Math.min(16, Math.floor((table.parentElement.clientWidth - 166) / body.length)));
    table.style.setProperty("--side", `${side}px`);
    table.style.setProperty("--classes", body.length);
    for (const names of [[...heads].slice(1), [...body].map(row => row.cells[0])])
      names.forEach((name, i) => name.classList.toggle("skipped", i % Math.ceil(11 / side) > 0));
  }
  if (many) {
    fitCells();
    addEventListener("resize", fitCells);
  }
  const position = event => {
    const cell = event.target.closest("tbody td");
    return cell && [cell.parentElement.sectionRowIndex, cell.cellIndex - 1];
  };
  function onCell(type, act) {
    table.addEventListener(type, event => {
      const at = position(event);
      if (at) act(...at, event);
    });
  }
  function showCell(i, j) {
    const count = confusion[i][j], [label, other] = [shown[i], shown[j]];
    const total = confusion[i].reduce((sum, value) => sum + value, 0);
    const prediction = i === j ? "predicted correctly" : `predicted as ${classes[other]}`;
    const share = total ? `, ${percent(count / total)}` : "";
    get("cell").textContent = `${classes[label]} ${prediction}: ${formatInteger(count)} of ${formatInteger(total)}${share}`;
    if (many) cellAt(i, j).title = get("cell").textContent;
    highlight(i, j);
  }
  function highlight(i, j) {
    table.querySelectorAll(".current").forEach(head => head.classList.remove("current"));
    [body[i]?.cells[0], j < 0 ? undefined : heads[j + 1]].forEach(head => head?.classList.add("current"));
  }
  const showImages = (i, j) => showClasses(shown[i], shown[j]);
  onCell("pointerover", showCell);
  onCell("focusin", showCell);
  onCell("click", showImages);
  onCell("keydown", (i, j, event) => {
    const moves = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
    if (event.key === "Enter") showImages(i, j);
    const target = moves[event.key] && cellAt(i + moves[event.key][0], j + moves[event.key][1]);
    if (!target) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    target.tabIndex = 0;
    target.focus();
  });
  table.addEventListener("pointerleave", () => {
    get("cell").textContent = summary;
    highlight(-1, -1);
  });
})();
