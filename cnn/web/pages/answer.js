// The network's answer: the classes, what it saw, the evidence, and the nearest training images.
import {magnify, picture} from "./colours.js";
import {drawHeat} from "./sheets.js";
import {integer, percent, text} from "./texts.js";

const BARS = 10, NEAREST = 5;

/** Returns the name of a class in the page's language. */
export function className(facts, label) {
  return (document.documentElement.lang === "ko" && facts.korean?.[label]) || facts.classes[label];
}

/**
 * Returns a function that shows an answer.
 *
 * @param network of network.js.
 * @param get returns an element by its id.
 * @param nearestSheet of sheets.js, with the training images of `network.nearest`; null if there are none.
 */
export function makeAnswer({facts, nearest}, get, nearestSheet) {
  const {image} = facts;
  const seenZoom = Math.max(1, Math.round(224 / Math.max(image.width, image.height)));

  // The bars keep their places: of few classes, all in order; of many, the most probable ones.
  function drawBars(probabilities, order, best, truth) {
    const labels = facts.classes.length > BARS ? order.slice(0, BARS) : [...facts.classes.keys()];
    const rows = [...get("bars").children];
    labels.forEach((label, i) => {
      const row = rows[i] ?? get("bars").appendChild(makeBar());
      const [name, bar, value] = row.children;
      row.className = ["row", label === best && "predicted", label === truth && "true"].filter(Boolean).join(" ");
      name.textContent = `${className(facts, label)}${label === truth ? " ✓" : ""}`;
      bar.firstChild.style.width = `${100 * probabilities[label]}%`;
      value.textContent = percent(probabilities[label]);
    });
    const rest = order.slice(BARS);
    get("others").textContent = !rest.length ? "" : text("others", {
      count: integer(rest.length), share: percent(rest.reduce((sum, label) => sum + probabilities[label], 0)),
    });
  }

  function drawEvidence(pixels, evidence, name) {
    get("evidence-box").hidden = !evidence;
    if (!evidence) return;
    const [, height, width] = evidence.dims, most = evidence.data.reduce((max, value) => Math.max(max, value), 0);
    get("evidence-title").textContent = text("evidence", {layer: facts.grad_cam});
    get("evidence-text").textContent = text(most ? "evidenceText" : "noEvidence", {layer: facts.grad_cam, class: name});
    const canvas = get("evidence"), context = canvas.getContext("2d");
    magnify(canvas, picture(pixels, image.width, image.height, image.channels, image.channels === 1), seenZoom);
    drawHeat(context, evidence.data, width, height, most);
  }

  function drawNearest(maps) {
    const {found, unlike} = nearest(maps, NEAREST), {labels, indices} = facts.novelty;
    get("unlike").textContent = text(unlike ? "unlike" : "like");
    get("unlike").classList.toggle("warning", unlike);
    get("nearest").replaceChildren(...found.map(({position, distance}) => {
      const item = document.createElement("li"), canvas = document.createElement("canvas"), caption = document.createElement("span");
      nearestSheet.paint(canvas, position);
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", integer(indices[position]));
      caption.textContent = text("nearestText", {class: className(facts, labels[position]), distance: distance.toFixed(3)});
      item.append(canvas, caption);
      return item;
    }));
  }

  return ({pixels, inverted, probabilities, maps, evidence}, isEmpty, example) => {
    const order = Array.from(probabilities.keys()).sort((a, b) => probabilities[b] - probabilities[a] || a - b);
    const name = className(facts, order[0]);
    get("prediction").textContent = isEmpty ? text("nothingDrawn")
      : text("prediction", {class: name, share: percent(probabilities[order[0]])});
    get("bars").classList.toggle("empty", isEmpty);
    const truth = example === null ? null : facts.examples.labels[example];
    drawBars(probabilities, order, order[0], truth);
    get("truth").textContent = truth === null ? "" : text(truth === order[0] ? "right" : "wrong", {
      index: integer(facts.examples.indices[example]), class: className(facts, truth),
    });
    magnify(get("seen"), picture(pixels, image.width, image.height, image.channels), seenZoom);
    get("seen-text").textContent = text("seesText", {
      width: image.width, height: image.height, colour: text(image.channels === 1 ? "grey" : "inColour"),
      inverted: inverted ? text("inverted") : "",
    });
    drawEvidence(pixels, isEmpty ? null : evidence, name);
    get("nearest-box").hidden = isEmpty || !facts.novelty;
    get("unlike").textContent = "";
    if (facts.novelty && !isEmpty) drawNearest(maps);
  };
}

function makeBar() {
  const row = document.createElement("div"), [name, bar, value] = ["span", "div", "span"].map(tag => document.createElement(tag));
  bar.className = "bar";
  value.className = "value";
  bar.append(document.createElement("i"));
  row.append(name, bar, value);
  return row;
}
