// The layers: each with its feature maps, and the chosen map large, beside its filter.
import {className} from "./answer.js";
import {frame, magnify, mapPicture, mix, range} from "./colours.js";
import {mapsShape} from "./network.js";
import {format} from "./step.js";
import {text} from "./texts.js";

/** Kinds of layers whose outputs are those of the layer before. */
const SILENT = new Set(["Flatten", "Dropout"]);

/** Pixels of a map's longer side in the overview; of larger ones, each second, third, ... row and column is shown. */
const LONGEST = 64;

/** Number of a filter's parts, one for each input, that are drawn. */
const SHOWN_FILTERS = 64;

/**
 * Adds the layers to the page.
 *
 * @param network of network.js.
 * @param list element that gets them.
 * @param changed called when other layers have come into view.
 * @param chose called with the layer and the number of a map that is chosen here.
 * @returns {{visible: function, draw: function, translate: function, choose: function}} functions that return the names
 *   of the layers in view; draw maps by name; set all texts again; and choose a map of a layer.
 */
export function makeLayers(network, list, changed, chose) {
  const inView = new Set(), views = new Map(), chosen = {name: null, map: 0}, detail = makeDetail();
  let latest = new Map();

  const observer = new IntersectionObserver(entries => {
    for (const {target, isIntersecting} of entries) inView[isIntersecting ? "add" : "delete"](target.dataset.layer);
    changed();
  }, {rootMargin: "200px"});

  for (const layer of network.facts.layers) {
    const section = document.createElement("section"), head = document.createElement("h3");
    section.className = "layer";
    section.dataset.layer = layer.name;
    section.append(head);
    list.append(section);
    if (SILENT.has(layer.kind)) {
      views.set(layer.name, {layer, head});
      continue;
    }
    const box = document.createElement("div"), canvas = document.createElement("canvas");
    const ends = document.createElement("p");
    box.className = "maps-box";
    ends.className = "muted small range";
    Object.assign(canvas, {className: "maps", tabIndex: 0});
    canvas.setAttribute("role", "slider");
    for (const name of ["aria-valuemin", "aria-valuenow"]) canvas.setAttribute(name, 1);
    box.append(canvas);
    section.append(box, ends);
    const view = {layer, head, canvas, box, ends, section, grid: null};
    views.set(layer.name, view);
    const take = map => {
      choose(view, map);
      chose(layer.name, map);
    };
    canvas.addEventListener("click", event => {
      const map = mapAt(view, event);
      if (map !== null) take(map);
    });
    canvas.addEventListener("keydown", event => {
      const {columns, count} = view.grid ?? {columns: 1, count: 1};
      const steps = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -Infinity, End: Infinity};
      if (!(event.key in steps)) return;
      event.preventDefault();
      const now = chosen.name === layer.name ? chosen.map : 0;
      take(Math.min(Math.max(now + steps[event.key], 0), count - 1));
    });
    observer.observe(section);
    // Kernels of at most three inputs are drawn beside their maps.
    if (layer.kind === "Conv" && layer.kernel[2] <= 3) {
      network.constants(layer.name).then(({kernel}) => {
        view.kernel = kernel;
        changed();
      });
    }
  }
  const first = [...views.values()].find(view => view.canvas);
  if (first) Object.assign(chosen, {name: first.layer.name});

  const last = network.facts.layers.at(-1);
  function nameOf({values, shape: [count, height, width]}, map, layer) {
    if (height * width > 1) return text("map", {number: map + 1, count});
    const value = text("unit", {number: map + 1, count, value: format(values[map])});
    return layer === last ? `${value} (${className(network.facts, map)})` : value;
  }

  function choose(view, map) {
    const before = views.get(chosen.name);
    Object.assign(chosen, {name: view.layer.name, map});
    for (const one of new Set([before, view])) if (latest.has(one.layer.name)) drawView(one);
  }

  function drawView(view) {
    const maps = latest.get(view.layer.name), isChosen = chosen.name === view.layer.name;
    drawGrid(view, maps, isChosen ? chosen.map : -1);
    const [count] = maps.shape, now = isChosen ? chosen.map : 0;
    view.canvas.setAttribute("aria-valuemax", count);
    view.canvas.setAttribute("aria-valuenow", now + 1);
    const name = nameOf(maps, now, view.layer);
    view.canvas.setAttribute("aria-valuetext", name);
    if (isChosen) {
      if (detail.element.parentElement !== view.section) view.section.append(detail.element);
      detail.draw(network, view.layer, maps, chosen.map, name);
    }
  }

  return {
    visible: () => [...inView].filter(name => views.get(name)?.canvas),
    draw(maps) {
      latest = maps;
      for (const name of maps.keys()) if (inView.has(name) && views.get(name).canvas) drawView(views.get(name));
    },
    translate() {
      for (const {layer, head, canvas} of views.values()) {
        const about = document.createElement("span");
        about.className = "muted";
        const description = `${describe(layer)}${layer === last ? `, ${text("toClasses")}` : ""}`;
        about.textContent = ` ${description}`;
        head.replaceChildren(layer.name, about);
        canvas?.setAttribute("aria-label", `${layer.name}: ${description}`);
      }
      for (const view of views.values()) if (view.canvas && latest.has(view.layer.name)) drawView(view);
    },
    choose: (name, map) => choose(views.get(name), map),
  };
}

/** Returns what a layer of network.json computes, and the number and size of its maps. */
export function describe(layer) {
  const {kind, kernel, window, activation} = layer;
  const size = kernel?.length === 4 ? kernel : window;
  let what = `${text(kind)}${size ? ` ${text("kernelSize", {height: size[0], width: size[1]})}` : ""}`;
  if (SILENT.has(kind)) return what;
  if (activation) what = text("activated", {kind: what, activation: text(activation)});
  const [count, height, width] = mapsShape(layer);
  return `${what}: ${text(layer.shape.length > 1 ? "mapsOf" : "unitsOf", {count, height, width})}`;
}

/** Draws all maps of a layer into its canvas, in rows, on one scale; before each map its kernel, if that is known. */
function drawGrid(view, {values, shape: [count, fullHeight, fullWidth]}, marked) {
  const {layer, canvas, box, kernel} = view, step = Math.ceil(Math.max(fullHeight, fullWidth) / LONGEST);
  const height = Math.ceil(fullHeight / step), width = Math.ceil(fullWidth / step);
  const [tall, wide, parts] = kernel ? layer.kernel : [0, 0, 0];
  const kernelZoom = kernel ? Math.max(1, Math.floor(height / 3 / tall)) : 0, before = kernel ? wide * kernelZoom + 2 : 0;
  // In CSS pixels: maps of some 42 pixels, units of 14.
  const zoom = height * width === 1 ? 14 : Math.max(1, Math.round(42 / Math.max(height, width)));
  const gap = height * width === 1 ? 0 : 1, across = before + width + gap, down = Math.max(height, tall * kernelZoom) + gap;
  const columns = Math.max(1, Math.min(count, Math.floor((box.clientWidth - 8) / zoom / across)));
  const rows = Math.ceil(count / columns), [low, high] = range(values);
  const picture = new ImageData(columns * across, rows * down), pixels = new Uint32Array(picture.data.buffer);
  const [least, most] = kernel ? range(kernel) : [0, 0], limit = Math.max(-least, most) || 1;
  for (let map = 0; map < count; map++) {
    const left = map % columns * across, top = Math.floor(map / columns) * down;
    for (let y = 0; y < height; y++) {
      const from = (map * fullHeight + y * step) * fullWidth, to = (top + y) * picture.width + left + before;
      for (let x = 0; x < width; x++) pixels[to + x] = mix("maps", (values[from + x * step] - low) / (high - low || 1));
    }
    for (let y = 0; y < tall * kernelZoom; y++) for (let x = 0; x < wide * kernelZoom; x++) {
      const place = (Math.floor(y / kernelZoom) * wide + Math.floor(x / kernelZoom)) * parts;
      pixels[(top + y) * picture.width + left + x] = kernelColour(kernel, place, parts, layer.kernel[3], map, limit);
    }
  }
  const ratio = Math.max(1, Math.round(devicePixelRatio));
  magnify(canvas, picture, zoom * ratio);
  canvas.style.width = `${picture.width * zoom}px`;
  view.grid = {columns, count, across: across * zoom, down: down * zoom};
  if (marked >= 0) {
    const scale = zoom * ratio, left = marked % columns * across * scale, top = Math.floor(marked / columns) * down * scale;
    const inner = length => (length - gap) * scale - 2 * ratio;
    frame(canvas, left + ratio, top + ratio, inner(across), inner(down), 2 * ratio);
  }
  view.ends.textContent = text("mapRange", {low: format(low), high: format(high)});
}

/** The colour of a kernel's pixel: signed if it has one channel, red, green and blue around grey if it has three. */
function kernelColour(kernel, place, channels, features, map, limit) {
  const share = channel => (kernel[(place + channel) * features + map] / limit + 1) / 2;
  if (channels < 3) return mix("signed", share(0));
  const [red, green, blue] = [0, 1, 2].map(channel => Math.round(255 * share(channel)));
  return (255 << 24 | blue << 16 | green << 8 | red) >>> 0;
}

function mapAt({canvas, grid}, event) {
  const box = canvas.getBoundingClientRect(), scale = canvas.offsetWidth / box.width;
  const column = Math.floor((event.clientX - box.left) * scale / grid.across);
  const row = Math.floor((event.clientY - box.top) * scale / grid.down), map = row * grid.columns + column;
  return column < grid.columns && map < grid.count ? map : null;
}

/** The chosen map, large, with the value under the pointer, and its filter. */
function makeDetail() {
  const element = document.createElement("div"), figures = [0, 1].map(() => document.createElement("figure"));
  const [map, filter] = figures.map(figure => {
    const canvas = document.createElement("canvas"), caption = document.createElement("figcaption");
    canvas.setAttribute("role", "img");
    figure.append(canvas, caption);
    return {figure, canvas, caption};
  });
  element.className = "detail";
  element.append(...figures);
  let shown = null;

  map.canvas.addEventListener("pointermove", event => {
    if (!shown) return;
    const {values, shape: [, height, width]} = shown.maps, box = map.canvas.getBoundingClientRect();
    const column = Math.min(Math.floor((event.clientX - box.left) / box.width * width), width - 1);
    const row = Math.min(Math.floor((event.clientY - box.top) / box.height * height), height - 1);
    const value = format(values[(shown.map * height + row) * width + column]);
    map.caption.textContent = text("pointed", {row: row + 1, column: column + 1, value});
  });

  async function draw(network, layer, maps, index, name) {
    const {values, shape: [, height, width]} = maps, isMap = height * width > 1;
    shown = {maps, map: index};
    const own = values.subarray(index * height * width, (index + 1) * height * width), [low, high] = range(own).map(format);
    map.canvas.hidden = !isMap;
    const zoom = Math.max(1, Math.round(196 / Math.max(height, width)));
    if (isMap) magnify(map.canvas, mapPicture(own, width, height, ...range(values)), zoom);
    const ends = isMap ? `: ${text("mapRange", {low, high})}` : "";
    map.caption.textContent = `${name}${ends}`;
    map.canvas.setAttribute("aria-label", map.caption.textContent);
    filter.figure.hidden = layer.kernel?.length !== 4;
    if (filter.figure.hidden) return;
    const {kernel} = await network.constants(layer.name);
    if (shown.maps === maps && shown.map === index) drawFilter(filter, layer, kernel, index);
  }

  return {element, draw};
}

/** Draws the parts of a filter, one for each of the layer's inputs. */
function drawFilter({canvas, caption}, layer, kernel, map) {
  const [height, width, inputs, features] = layer.kernel, count = Math.min(inputs, SHOWN_FILTERS);
  const columns = Math.min(count, 8), rows = Math.ceil(count / columns);
  const picture = new ImageData(columns * (width + 1) - 1, rows * (height + 1) - 1);
  const pixels = new Uint32Array(picture.data.buffer);
  // A depthwise kernel is [height, width, 1, channels].
  const weights = Float32Array.from({length: height * width * inputs}, (_, i) => kernel[i * features + map]);
  const [low, high] = range(weights), limit = Math.max(-low, high) || 1;
  for (let input = 0; input < count; input++) {
    const left = input % columns * (width + 1), top = Math.floor(input / columns) * (height + 1);
    for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
      pixels[(top + y) * picture.width + left + x] = mix("signed", (weights[(y * width + x) * inputs + input] / limit + 1) / 2);
    }
  }
  magnify(canvas, picture, Math.max(1, Math.floor(196 / Math.max(picture.width, picture.height))));
  const values = {height, width, channels: inputs, low: format(low), high: format(high)};
  caption.textContent = `${text("kernelOf")}: ${text("kernelText", values)}`;
  canvas.setAttribute("aria-label", caption.textContent);
}
