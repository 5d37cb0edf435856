// The part of the page in which one steps through a convolution and its pooling, pixel by pixel.
import {picture} from "./colours.js";
import {convolve, firstLayers, format, magnitude, numberTable, poolWindow, windowAt} from "./step.js";
import {text} from "./texts.js";

/**
 * Sets the part up, if the network begins with a convolution.
 *
 * @param network of network.js.
 * @param get returns an element by its id.
 * @param answer returns what is shown, {pixels, maps}, or null.
 * @param choose called with the layer and the number of the map that is chosen here.
 * @returns {{needed: string[], draw: function, translate: function}} the layers whose maps it draws.
 */
export async function makeStepper(network, get, answer, choose) {
  const {conv, pool} = firstLayers(network.facts), {image} = network.facts;
  if (!conv) return {needed: [], draw() {}, translate() {}};
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
    const {width, height, channels} = image, context = canvas.getContext("2d");
    Object.assign(canvas, {width: width * zoom, height: height * zoom});
    const small = new OffscreenCanvas(width, height);
    small.getContext("2d").putImageData(picture(pixels, width, height, channels), 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    const [top, left] = windowAt(conv, image, place.row, place.column);
    context.lineWidth = Math.max(2, zoom / 4);
    context.strokeStyle = getComputedStyle(canvas).getPropertyValue("--vermillion");
    context.strokeRect(left * zoom, top * zoom, conv.kernel[1] * zoom, conv.kernel[0] * zoom);
  }

  function line(name, value, className = "") {
    const row = document.createElement("p"), number = document.createElement("b");
    row.className = `line ${className}`;
    number.textContent = format(value);
    row.append(`${name} `, number);
    return row;
  }

  function group(...parts) {
    const element = document.createElement("div");
    element.className = "group";
    element.append(...parts.map(part => {
      if (part instanceof Element) return part;
      const sign = document.createElement("span");
      sign.className = "sign";
      sign.textContent = part;
      return sign;
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
    const {channels, sum, bias, total} = convolve(conv, image, pixels, constants, row, column, map);
    const limits = [Math.max(...channels.map(part => magnitude(part.kernel))), Math.max(...channels.map(part => magnitude(part.products)))];
    const {values} = maps.get(conv.name), own = values[(map * rows + row) * columns + column];
    const parts = channels.map((part, channel) => {
      const name = key => channels.length === 3 ? `${text(key)}: ${text(`channel${channel}`)}` : text(key);
      return group(
        numberTable(name("window"), part.window, "grey", 1), "×",
        numberTable(name("kernel"), part.kernel, "signed", limits[0]), "=",
        numberTable(name("products"), part.products, "signed", limits[1]),
      );
    });
    parts.push(line(text("sum"), sum));
    if (constants.bias) parts.push(line(text("bias"), bias), line("=", total));
    parts.push(line(`${text(conv.activation ?? "none")} → ${text("own")}`, own, "result"));
    if (pool) parts.push(...poolParts(maps, row, column, map));
    get("step-numbers").replaceChildren(...parts);
  }

  function poolParts(maps, row, column, map) {
    const title = document.createElement("h3"), found = poolWindow(pool, maps.get(conv.name), row, column, map);
    title.textContent = `${pool.name} · ${text(found ? "pooling" : "noPooling")}`;
    if (!found) return [title];
    const {rows: window, place: [y, x]} = found, marked = [row % pool.window[0], column % pool.window[1]];
    const {values, shape: [, height, width]} = maps.get(pool.name);
    return [
      title, group(numberTable(text("window"), window, "maps", magnitude(window), marked), "→"),
      line(text("own"), values[(map * height + y) * width + x], "result"),
    ];
  }

  return {
    needed: [conv.name, ...pool ? [pool.name] : []],
    draw,
    translate() {
      get("step-text").textContent = text("stepText", {layer: conv.name});
    },
  };
}
