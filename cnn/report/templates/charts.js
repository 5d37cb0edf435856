// Draws each .chart of the page with uPlot: curves by epoch, the best epoch dashed, values in the legend.
"use strict";
const page = JSON.parse(document.getElementById("data").textContent);
const get = id => document.getElementById(id);
const percent = share => `${(100 * share).toFixed(1)}\u00a0%`;
const formatInteger = number => number.toLocaleString("en");
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const COLOURS = ["blue", "vermillion", "green", "pink", "orange", "sky", "ink"];
const DASHES = [[], [8, 4], [2, 3]];
const charts = [];

function drawChart(element) {
  const split = document.querySelector("[name=split]:checked")?.value ?? "all";
  const {epochs, best, [element.dataset.chart]: curves} = page.curves[split];
  const showBest = u => best !== null && u.cursor.idx == null && u.setLegend({idx: epochs.indexOf(best)});
  const grid = {stroke: colour("line"), width: 1};
  const axis = {stroke: colour("quiet"), grid, ticks: grid, font: "12px system-ui, sans-serif"};

  function markBest(u) {
    if (best === null) return;
    const x = Math.round(u.valToPos(best, "x", true));
    u.ctx.save();
    u.ctx.strokeStyle = colour("grey");
    u.ctx.lineWidth = devicePixelRatio;
    u.ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
    u.ctx.beginPath();
    u.ctx.moveTo(x, u.bbox.top);
    u.ctx.lineTo(x, u.bbox.top + u.bbox.height);
    u.ctx.stroke();
    u.ctx.restore();
  }

  const chart = new uPlot({
    width: element.clientWidth,
    height: 280,
    scales: {x: {time: false, range: (u, low, high) => [low - .3, high + .3]}},
    axes: [
      {...axis, label: "epoch", labelSize: 18, labelGap: 0, size: 30, labelFont: "12px system-ui, sans-serif", incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500]},
      {...axis, size: 52},
    ],
    series: [
      {label: "epoch", value: (u, value) => value ?? "–"},
      ...curves.map(({label}, i) => ({
        label,
        stroke: colour(COLOURS[i % COLOURS.length]),
        width: 2,
        dash: DASHES[Math.floor(i / COLOURS.length) % DASHES.length],
        points: {show: epochs.length <= 40, size: 6, fill: colour(COLOURS[i % COLOURS.length])},
        value: (u, value) => value == null ? "–" : value.toFixed(4),
      })),
    ],
    // A click on a legend entry hides its curve; zooming would need an obvious way to zoom out again.
    cursor: {drag: {x: false, y: false}, y: false},
    hooks: {draw: [markBest], ready: [showBest], setCursor: [showBest]},
  }, [epochs, ...curves.map(curve => curve.values)], element);
  charts.push(chart);
}

function drawCharts() {
  while (charts.length) charts.pop().destroy();
  document.querySelectorAll(".chart").forEach(drawChart);
}

drawCharts();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
addEventListener("resize", () => charts.forEach(chart =>
  chart.setSize({width: chart.root.parentElement.clientWidth, height: 280})));
document.querySelectorAll("[name=split]").forEach(radio => radio.addEventListener("change", drawCharts));
