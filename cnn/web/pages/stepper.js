// The part of the page in which one steps through a convolution and its pooling, pixel by pixel.
import {frame, magnify, mapPicture, picture, range} from "./colours.js";
import {convolve, firstLayers, format, magnitude, numberTable, poolWindow, windowAt} from "./step.js";
import {text} from "./texts.js";

/**
 * Sets the part up, if the network begins with a convolution.
 *
 * @param network of network.js.
 * @param get returns an element by its id.
 * @param answer returns what is shown, {pixels, maps}, or null.
 * @param choose called with the layer and the number of the map that is chosen here.
 * @returns {{needed: string[], draw: function, translate: function, select: function}} the layers whose maps it draws;
 *   and a function that selects a map of a layer, if it is the convolution's.
 */
export async function makeStepper(network, get, answer, choose) {
  const {conv, pool} = firstLayers(network.facts), {image} = network.facts;
  if (!conv) return {needed: [], draw() {}, translate() {}, select() {}};
  const constants = await network.constants(conv.name), [rows, columns, count] = conv.shape;
  const place = {row: Math.floor(rows / 2), column: Math.floor(columns / 2)}, canvas = get("step-picture"), list = get("step-filter");
  list.append(...Array.from({length: count}, (_, i) => new Option(i + 1, i)));
  get("step-box").hidden = false;
  canvas.setAttribute("aria-valuemax", rows * columns);
  const zoom = Math.max(1, Math.round(280 / Math.max(image.height, image.width)));

  function move(row, column) {
    Object.assign(place, {row: Math.min(Math.max(row, 0), rows - 1), column: Math.min(Math.max(column, 0), columns - 1)});
    if (answer()) draw(answer());
  }

  function step(by) {
    const at = (place.row * columns + place.column + by + rows * columns) % (rows * columns);
    move(Math.floor(at / columns), at % columns);
  }

  canvas.addEventListener("click", event => {
    const box = canvas.getBoundingClientRect();
    move(Math.floor((event.clientY - box.top) / box.height * rows), Math.floor((event.clientX - box.left) / box.width * columns));
  });
  canvas.addEventListener("keydown", event => {
    const steps = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
    if (!(event.key in steps)) return;
    event.preventDefault();
    move(place.row + steps[event.key][0], place.column + steps[event.key][1]);
  });
  get("step-previous").addEventListener("click", () => step(-1));
  get("step-next").addEventListener("click", () => step(1));
  list.addEventListener("change", () => {
    choose(conv.name, Number(list.value));
    move(place.row, place.column);
  });

  function drawPicture(pixels) {
    magnify(canvas, picture(pixels, image.width, image.height, image.channels), zoom);
    const [top, left] = windowAt(conv, image, place.row, place.column), [tall, wide] = conv.kernel;
    frame(canvas, left * zoom, top * zoom, wide * zoom, tall * zoom, Math.max(2, zoom / 4));
  }

  /** The feature map, with a frame around the number. */
  function drawMap({values}, map, row, column) {
    const own = values.subarray(map * rows * columns, (map + 1) * rows * columns);
    const target = get("step-map"), size = Math.max(1, Math.round(280 / Math.max(rows, columns)));
    magnify(target, mapPicture(own, columns, rows, ...range(own)), size);
    frame(target, column * size, row * size, size, size, Math.max(2, size / 4));
    target.setAttribute("aria-label", text("stepMap", {layer: conv.name}));
  }

  function line(name, value, className = "") {
    const row = document.createElement("p"), number = document.createElement("b");
    row.className = `line ${className}`;
    number.textContent = format(value);
    row.append(`${name} `, number);
    return row;
  }

  /** Parts in a row; each sign stays with what follows it. */
  function group(first, ...pairs) {
    const element = document.createElement("div");
    element.className = "group";
    element.append(first, ...pairs.map(([mark, part]) => {
      const [pair, sign] = ["span", "span"].map(tag => document.createElement(tag));
      pair.className = "pair";
      sign.className = "sign";
      sign.textContent = mark;
      pair.append(sign, part);
      return pair;
    }));
    return element;
  }

  function draw({pixels, maps}) {
    const map = Number(list.value), {row, column} = place;
    drawPicture(pixels);
    const position = text("pixel", {row: row + 1, column: column + 1});
    get("step-place").textContent = position;
    canvas.setAttribute("aria-valuenow", row * columns + column + 1);
    canvas.setAttribute("aria-valuetext", position);
    const {channels, sum, bias, total, isInside} = convolve(conv, image, pixels, constants, row, column, map);
    const limits = [Math.max(...channels.map(part => magnitude(part.kernel))), Math.max(...channels.map(part => magnitude(part.products)))];
    const {values} = maps.get(conv.name), own = values[(map * rows + row) * columns + column];
    drawMap(maps.get(conv.name), map, row, column);
    const outside = (y, x) => isInside(y, x) ? "" : "outside";
    const parts = channels.map((part, channel) => {
      const name = key => channels.length === 3 ? `${text(key)}: ${text(`channel${channel}`)}` : text(key);
      return group(
        numberTable(name("window"), part.window, "grey", 1, outside),
        ["×", numberTable(name("kernel"), part.kernel, "signed", limits[0])],
        ["=", numberTable(name("products"), part.products, "signed", limits[1])],
      );
    });
    const [tall, wide] = conv.kernel;
    if (!isInside(0, 0) || !isInside(tall - 1, wide - 1)) {
      const note = document.createElement("p");
      note.className = "muted small";
      note.textContent = text("padding");
      parts.push(note);
    }
    parts.push(line(text("sum"), sum));
    if (constants.bias) parts.push(line(text("bias"), bias), line("=", total));
    const activation = text(conv.activation === "relu" ? "reluText" : conv.activation ?? "none");
    parts.push(line(`${activation} → ${text("own")}`, own, "result"));
    if (pool) parts.push(...poolParts(maps, row, column, map));
    get("step-numbers").replaceChildren(...parts);
  }

  function poolParts(maps, row, column, map) {
    const title = document.createElement("h3"), found = poolWindow(pool, maps.get(conv.name), row, column, map);
    title.textContent = `${pool.name} · ${text(found ? "pooling" : "noPooling")}`;
    if (!found) return [title];
    const {rows: window, place: [y, x]} = found, largest = Math.max(...window.flat());
    const {values, shape: [, height, width]} = maps.get(pool.name);
    const marked = (row, column) => window[row][column] === largest ? "marked" : "";
    const result = line(text("own"), values[(map * height + y) * width + x], "result");
    return [title, group(numberTable(text("window"), window, "maps", largest, marked), ["→", result])];
  }

  return {
    needed: [conv.name, ...pool ? [pool.name] : []],
    draw,
    select(name, map) {
      if (name !== conv.name) return;
      list.value = map;
      if (answer()) draw(answer());
    },
    translate() {
      get("step-text").textContent = text("stepText", {layer: conv.name});
    },
  };
}
