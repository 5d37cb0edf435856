// The confusion matrix, and the explorer: an image, a layer, and what the layer makes of the image.
"use strict";
(() => {
  const {classes, korean, confusion, explorer} = page;
  const {size: [height, width], images, layers, colours} = explorer;
  const get = id => document.getElementById(id);
  const percent = share => `${(100 * share).toFixed(1)}\u00a0%`;
  const whole = number => number.toLocaleString("en");
  const state = {found: images.map((_, place) => place), at: 0, layer: layers.length - 1, columns: 1};

  // Pictures are decoded once, when they are first shown.
  const decoded = new Map();
  function decode(source) {
    if (!decoded.has(source)) {
      const picture = new Image();
      picture.src = source;
      decoded.set(source, picture.decode().then(() => picture));
    }
    return decoded.get(source);
  }

  const scratch = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  function pixels(picture, x, y, across, down) {
    scratch.canvas.width = across;
    scratch.canvas.height = down;
    scratch.drawImage(picture, x, y, across, down, 0, 0, across, down);
    return scratch.getImageData(0, 0, across, down).data;
  }

  // Between the colours of a map's scale: [r, g, b] for a share from 0 to 1.
  function mix(scale, share) {
    const place = Math.min(Math.max(share, 0), 1) * (scale.length - 1);
    const low = Math.min(Math.floor(place), scale.length - 2);
    return scale[low].map((value, i) => value + (place - low) * (scale[low + 1][i] - value));
  }

  function paint(context, sheet, index, x, y, across, down) {
    const left = index % explorer.columns * width, top = Math.floor(index / explorer.columns) * height;
    context.drawImage(sheet, left, top, width, height, x, y, across, down);
  }

  const THUMB = Math.max(28, width) + 4;
  async function drawGallery() {
    const sheet = await decode(explorer.src), canvas = get("gallery"), ratio = devicePixelRatio;
    state.columns = Math.max(1, Math.floor((get("gallery-box").clientWidth - 8) / THUMB));
    const rows = Math.max(1, Math.ceil(state.found.length / state.columns));
    canvas.width = state.columns * THUMB * ratio;
    canvas.height = rows * THUMB * ratio;
    canvas.style.width = `${state.columns * THUMB}px`;
    canvas.style.height = `${rows * THUMB}px`;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    state.found.forEach((index, i) => {
      const x = i % state.columns * THUMB, y = Math.floor(i / state.columns) * THUMB;
      paint(context, sheet, index, x + 2, y + 2, THUMB - 4, THUMB - 4);
      if (images[index].predicted !== images[index].label) {
        context.fillStyle = colour("vermillion");
        context.beginPath();
        context.moveTo(x + THUMB - 12, y + 2);
        context.lineTo(x + THUMB - 2, y + 2);
        context.lineTo(x + THUMB - 2, y + 12);
        context.fill();
      }
      if (i === state.at) {
        context.strokeStyle = colour("blue");
        context.lineWidth = 3;
        context.strokeRect(x + 1.5, y + 1.5, THUMB - 3, THUMB - 3);
      }
    });
  }

  function named(label) {
    const name = document.createElement("span"), also = document.createElement("span");
    name.textContent = `${classes[label]} `;
    also.lang = "ko";
    also.textContent = korean?.[label] ?? "";
    name.append(also);
    return name;
  }

  const MOST_BARS = 10;
  function drawBars(image) {
    const said = image.predicted;
    const order = image.probabilities.map((_, label) => label)
      .sort((a, b) => image.probabilities[b] - image.probabilities[a]).slice(0, MOST_BARS).sort((a, b) => a - b);
    get("bars").replaceChildren(...order.map(label => {
      const row = document.createElement("div"), bar = document.createElement("div"), value = document.createElement("span");
      const fill = document.createElement("i"), name = named(label);
      const marks = [label === said && "says", label === image.label && "is"].filter(Boolean);
      row.className = ["row", ...marks].join(" ");
      if (label === image.label) name.append(" ✓");
      bar.className = "bar";
      fill.style.width = `${100 * image.probabilities[label]}%`;
      bar.append(fill);
      value.className = "value";
      value.textContent = percent(image.probabilities[label]);
      row.append(name, bar, value);
      return row;
    }));
  }

  async function drawImage(index) {
    const sheet = await decode(explorer.src), canvas = get("image");
    canvas.width = width;
    canvas.height = height;
    paint(canvas.getContext("2d"), sheet, index, 0, 0, width, height);
  }

  async function drawCam(index, layer) {
    const [sheet, cams] = await Promise.all([decode(explorer.src), decode(layer.cam)]);
    const canvas = get("cam"), context = canvas.getContext("2d"), scale = 8;
    canvas.width = width * scale;
    canvas.height = height * scale;
    context.imageSmoothingEnabled = false;
    paint(context, sheet, index, 0, 0, canvas.width, canvas.height);
    const heat = pixels(cams, 0, index * layer.height, layer.width, layer.height);
    const most = heat.reduce((found, value, i) => i % 4 ? found : Math.max(found, value), 0);
    get("nothing").textContent = most ? "" : " Here, nothing does.";
    const over = scratch.createImageData(layer.width, layer.height);
    for (let i = 0; i < heat.length; i += 4) over.data.set([...mix(colours.heat, heat[i] / 255), 165], i);
    scratch.putImageData(over, 0, 0);
    context.imageSmoothingEnabled = true;
    context.drawImage(scratch.canvas, 0, 0, canvas.width, canvas.height);
  }

  let drawn = null;
  async function drawMaps(index, layer) {
    const sheet = await decode(layer.src), canvas = get("maps"), count = layer.channels.length;
    const room = get("maps-box").clientWidth, columns = Math.min(count, room < 480 ? 8 : 16);
    const across = columns * (layer.width + 1) - 1, down = Math.ceil(count / columns) * (layer.height + 1) - 1;
    const zoom = Math.max(1, Math.floor(room * devicePixelRatio / across));
    const values = pixels(sheet, 0, index * layer.height, count * layer.width, layer.height);
    const picture = scratch.createImageData(across, down);
    for (let channel = 0; channel < count; channel++) {
      const left = channel % columns * (layer.width + 1), top = Math.floor(channel / columns) * (layer.height + 1);
      for (let y = 0; y < layer.height; y++) for (let x = 0; x < layer.width; x++) {
        const share = values[4 * (y * count * layer.width + channel * layer.width + x)] / 255;
        picture.data.set([...mix(colours.maps, share), 255], 4 * ((top + y) * across + left + x));
      }
    }
    scratch.canvas.width = across;
    scratch.canvas.height = down;
    scratch.putImageData(picture, 0, 0);
    canvas.width = across * zoom;
    canvas.height = down * zoom;
    canvas.style.width = `min(100%, ${canvas.width / devicePixelRatio}px)`;
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(scratch.canvas, 0, 0, canvas.width, canvas.height);
    drawn = {layer, index, values, columns, across, down};
    get("lowest").textContent = layer.lowest[index].toFixed(2);
    get("highest").textContent = layer.highest[index].toFixed(2);
    get("map").textContent = "One scale for all maps of the image. Point at a map for its values.";
    canvas.setAttribute("aria-label", `The ${count} maps of ${layer.name}`);
  }

  get("maps").addEventListener("pointermove", event => {
    if (!drawn) return;
    const {layer, index, values, columns, across, down} = drawn, box = get("maps").getBoundingClientRect();
    const x = Math.floor((event.clientX - box.left) / box.width * across);
    const y = Math.floor((event.clientY - box.top) / box.height * down);
    const channel = Math.floor(y / (layer.height + 1)) * columns + Math.floor(x / (layer.width + 1));
    const [column, row] = [x % (layer.width + 1), y % (layer.height + 1)];
    if (channel >= layer.channels.length || column === layer.width || row === layer.height) return;
    const share = values[4 * (row * layer.channels.length * layer.width + channel * layer.width + column)] / 255;
    const value = layer.lowest[index] + share * (layer.highest[index] - layer.lowest[index]);
    get("map").textContent = `Map ${layer.channels[channel] + 1} of ${layer.of}, row ${row + 1}, column ${column + 1}: about ${value.toFixed(2)}`;
  });

  async function show() {
    await drawGallery();
    const count = state.found.length, gallery = get("gallery");
    get("count").textContent = count ? `${state.at + 1} of ${whole(count)}` : "";
    get("previous").disabled = get("next").disabled = count < 2;
    gallery.setAttribute("aria-valuemin", count ? 1 : 0);
    gallery.setAttribute("aria-valuemax", count);
    gallery.setAttribute("aria-valuenow", count ? state.at + 1 : 0);
    if (!count) {
      get("prediction").textContent = "None of the images in this page is such a one.";
      gallery.setAttribute("aria-valuetext", "none");
      return;
    }
    const index = state.found[state.at], image = images[index], said = image.predicted;
    const says = `the network says ${classes[said]}, with a probability of ${percent(image.probabilities[said])}`;
    const text = `Test image ${whole(image.test)} is of class ${classes[image.label]}; ${says}.`;
    get("prediction").textContent = text;
    gallery.setAttribute("aria-valuetext", text);
    drawBars(image);
    const layer = layers[state.layer];
    await Promise.all([drawImage(index), layer && drawCam(index, layer), layer && drawMaps(index, layer)]);
    // Only now is all of it that of the text.
    get("explorer").dataset.shown = `${image.test} ${layer ? layer.name : ""}`;
  }

  // One after the other, as all draw on the same scratch canvas; of several that wait, the last is enough.
  let running = null, waiting = false;
  function refresh() {
    waiting = true;
    running ??= (async () => {
      while (waiting) {
        waiting = false;
        await show();
      }
      running = null;
    })();
  }

  function go(at) {
    if (!state.found.length) return;
    state.at = Math.min(Math.max(at, 0), state.found.length - 1);
    refresh();
    const box = get("gallery-box"), top = Math.floor(state.at / state.columns) * THUMB;
    if (top < box.scrollTop) box.scrollTop = top;
    if (top + THUMB > box.scrollTop + box.clientHeight) box.scrollTop = top + THUMB - box.clientHeight + 8;
  }

  function filter() {
    const mistakes = document.querySelector("[name=which]:checked").value === "mistakes";
    const [label, said] = ["true-class", "predicted-class"].map(id => get(id).value);
    const before = state.found[state.at];
    state.found = images.map((_, i) => i).filter(i =>
      (!mistakes || images[i].predicted !== images[i].label)
      && (label === "" || images[i].label === +label) && (said === "" || images[i].predicted === +said));
    state.at = Math.max(state.found.indexOf(before), 0);
    refresh();
    go(state.at);
  }

  document.querySelectorAll("[name=which]").forEach(radio => radio.addEventListener("change", filter));
  ["true-class", "predicted-class"].forEach(id => get(id).addEventListener("change", filter));
  const around = step => go((state.at + step + state.found.length) % Math.max(state.found.length, 1));
  get("previous").addEventListener("click", () => around(-1));
  get("next").addEventListener("click", () => around(1));
  get("gallery").addEventListener("click", event => {
    const box = get("gallery").getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left) / THUMB), row = Math.floor((event.clientY - box.top) / THUMB);
    const at = row * state.columns + column;
    if (column < state.columns && at < state.found.length) go(at);
  });
  get("gallery").addEventListener("keydown", event => {
    const steps = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -state.columns, ArrowDown: state.columns, Home: -Infinity, End: Infinity};
    if (!(event.key in steps)) return;
    event.preventDefault();
    const at = state.at + steps[event.key];
    // Up from the first row and down from the last stay where they are.
    if (!event.key.match(/Up|Down/) || (at >= 0 && at < state.found.length)) go(at);
  });

  layers.forEach((layer, i) => {
    const label = document.createElement("label"), radio = document.createElement("input");
    Object.assign(radio, {type: "radio", name: "layer", value: layer.name, checked: i === state.layer});
    radio.addEventListener("change", () => {
      state.layer = i;
      nameLayer();
      refresh();
    });
    label.append(radio, ` ${layer.name}`);
    get("layers").append(label);
  });
  const nameLayer = () => document.querySelectorAll(".layer-name").forEach(span => {
    span.textContent = layers[state.layer].name;
  });
  if (layers.length) nameLayer();
  else document.querySelectorAll(".layered").forEach(part => part.remove());

  const scale = get("scale")?.getContext("2d");
  for (let x = 0; scale && x < 256; x++) {
    scale.fillStyle = `rgb(${mix(colours.maps, x / 255)})`;
    scale.fillRect(x, 0, 1, 1);
  }

  // The confusion matrix: one stop of the tab key, in which the arrow keys move.
  const table = document.querySelector(".confusion"), rows = [...table.tBodies[0].rows].map(row => [...row.cells].slice(1));
  const heads = [...table.tHead.rows[0].cells].slice(1);
  const most = Math.max(1, ...confusion.flatMap((row, i) => row.filter((_, j) => i !== j)));
  const idle = get("cell").textContent;
  function tell(i, j) {
    const count = confusion[i][j], all = confusion[i].reduce((sum, one) => sum + one, 0);
    const taken = i === j ? "is taken for it" : `is taken for ${classes[j]}`;
    get("cell").textContent = `${classes[i]} ${taken}: ${whole(count)} of ${whole(all)}${all ? `, ${percent(count / all)}` : ""}`;
    mark(i, j);
  }
  function mark(i, j) {
    rows.forEach((row, at) => row[0].parentElement.cells[0].classList.toggle("here", at === i));
    heads.forEach((head, at) => head.classList.toggle("here", at === j));
  }
  function lookAt(i, j) {
    document.querySelector("[name=which][value=all]").checked = true;
    get("true-class").value = i;
    get("predicted-class").value = j;
    filter();
    get("explorer").scrollIntoView({behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth"});
    get("gallery").focus({preventScroll: true});
  }
  rows.forEach((row, i) => row.forEach((cell, j) => {
    cell.tabIndex = i || j ? -1 : 0;
    if (i !== j) cell.style.setProperty("--share", confusion[i][j] / most);
    cell.addEventListener("pointerenter", () => tell(i, j));
    cell.addEventListener("focus", () => tell(i, j));
    cell.addEventListener("click", () => lookAt(i, j));
    cell.addEventListener("keydown", event => {
      const moves = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
      if (event.key === "Enter") lookAt(i, j);
      const to = moves[event.key] && rows[i + moves[event.key][0]]?.[j + moves[event.key][1]];
      if (!to) return;
      event.preventDefault();
      cell.tabIndex = -1;
      to.tabIndex = 0;
      to.focus();
    });
  }));
  table.addEventListener("pointerleave", () => {
    get("cell").textContent = idle;
    mark(-1, -1);
  });

  refresh();
  addEventListener("resize", refresh);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
})();
