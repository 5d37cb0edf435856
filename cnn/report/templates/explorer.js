// The explorer: an image, a layer, and the feature maps of the layer for the image.
"use strict";
const showClasses = (() => {
  const {classes, korean, explorer} = page;
  const {size: [height, width], images, layers, colours} = explorer;
  const state = {matches: images.map((_, index) => index), position: 0, layer: layers.length - 1, columns: 1};

  // Images are decoded once, when they are first shown.
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

  // Interpolates a colour map: [r, g, b] for a share from 0 to 1.
  function mix(scale, share) {
    const position = Math.min(Math.max(share, 0), 1) * (scale.length - 1);
    const low = Math.min(Math.floor(position), scale.length - 2);
    return scale[low].map((value, i) => value + (position - low) * (scale[low + 1][i] - value));
  }

  function paint(context, sheet, index, x, y, across, down) {
    const left = index % explorer.columns * width, top = Math.floor(index / explorer.columns) * height;
    context.drawImage(sheet, left, top, width, height, x, y, across, down);
  }

  // Thumbnails are square, so that images of any shape fit.
  const THUMB = Math.min(Math.max(28, width, height), 56) + 4;
  const longest = Math.max(width, height), thumbWidth = width / longest * (THUMB - 4), thumbHeight = height / longest * (THUMB - 4);
  async function drawGallery() {
    const sheet = await decode(explorer.src), canvas = get("gallery"), ratio = devicePixelRatio;
    state.columns = Math.max(1, Math.floor((get("gallery-box").clientWidth - 8) / THUMB));
    const rows = Math.max(1, Math.ceil(state.matches.length / state.columns));
    canvas.width = state.columns * THUMB * ratio;
    canvas.height = rows * THUMB * ratio;
    canvas.style.width = `${state.columns * THUMB}px`;
    canvas.style.height = `${rows * THUMB}px`;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    state.matches.forEach((index, i) => {
      const x = i % state.columns * THUMB, y = Math.floor(i / state.columns) * THUMB;
      paint(context, sheet, index, x + (THUMB - thumbWidth) / 2, y + (THUMB - thumbHeight) / 2, thumbWidth, thumbHeight);
      if (images[index].predicted !== images[index].label) {
        context.fillStyle = colour("vermillion");
        context.beginPath();
        context.moveTo(x + THUMB - 12, y + 2);
        context.lineTo(x + THUMB - 2, y + 2);
        context.lineTo(x + THUMB - 2, y + 12);
        context.fill();
      }
      if (i === state.position) {
        context.strokeStyle = colour("blue");
        context.lineWidth = 3;
        context.strokeRect(x + 1.5, y + 1.5, THUMB - 3, THUMB - 3);
      }
    });
  }

  function nameElement(label) {
    const name = document.createElement("span"), koreanName = document.createElement("span");
    name.textContent = `${classes[label]} `;
    koreanName.lang = "ko";
    koreanName.textContent = korean?.[label] ?? "";
    name.append(koreanName);
    return name;
  }

  function drawBars(image) {
    get("bars").replaceChildren(...image.classes.map((label, i) => {
      const row = document.createElement("div"), bar = document.createElement("div"), value = document.createElement("span");
      const fill = document.createElement("i"), name = nameElement(label);
      const marks = [label === image.predicted && "predicted", label === image.label && "true"].filter(Boolean);
      row.className = ["row", ...marks].join(" ");
      if (label === image.label) name.append(" ✓");
      bar.className = "bar";
      fill.style.width = `${100 * image.probabilities[i]}%`;
      bar.append(fill);
      value.className = "value";
      value.textContent = percent(image.probabilities[i]);
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
    const canvas = get("cam"), context = canvas.getContext("2d"), scale = Math.max(1, Math.min(8, Math.floor(1024 / longest)));
    canvas.width = width * scale;
    canvas.height = height * scale;
    context.imageSmoothingEnabled = false;
    paint(context, sheet, index, 0, 0, canvas.width, canvas.height);
    const heat = pixels(cams, 0, index * layer.height, layer.width, layer.height);
    const highest = heat.reduce((max, value, i) => i % 4 ? max : Math.max(max, value), 0);
    get("no-evidence").textContent = highest ? "" : " This image has none.";
    const overlay = scratch.createImageData(layer.width, layer.height);
    for (let i = 0; i < heat.length; i += 4) overlay.data.set([...mix(colours.heat, heat[i] / 255), 165], i);
    scratch.putImageData(overlay, 0, 0);
    context.imageSmoothingEnabled = true;
    context.drawImage(scratch.canvas, 0, 0, canvas.width, canvas.height);
  }

  let drawn = null;
  async function drawMaps(index, layer) {
    const sheet = await decode(layer.src), canvas = get("maps"), count = layer.channels.length;
    const available = get("maps-box").clientWidth, columns = Math.min(count, available < 480 ? 8 : 16);
    const across = columns * (layer.width + 1) - 1, down = Math.ceil(count / columns) * (layer.height + 1) - 1;
    const zoom = Math.max(1, Math.floor(available * devicePixelRatio / across));
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
    get("map").textContent = "All maps of the image share one scale. Point at a map for its values.";
    canvas.setAttribute("aria-label", `${count} feature maps of ${layer.name}`);
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
    get("map").textContent = `Map ${layer.channels[channel] + 1} of ${layer.of}, row ${row * layer.step + 1}, column ${column * layer.step + 1}: about ${value.toFixed(2)}`;
  });

  async function show() {
    await drawGallery();
    const count = state.matches.length, gallery = get("gallery");
    get("count").textContent = count ? `${state.position + 1} of ${formatInteger(count)}` : "";
    get("previous").disabled = get("next").disabled = count < 2;
    gallery.setAttribute("aria-valuemin", count ? 1 : 0);
    gallery.setAttribute("aria-valuemax", count);
    gallery.setAttribute("aria-valuenow", count ? state.position + 1 : 0);
    if (!count) {
      get("prediction").textContent = "No image in this page matches.";
      gallery.setAttribute("aria-valuetext", "none");
      return;
    }
    const index = state.matches[state.position], image = images[index], {label, predicted} = image;
    const prediction = `predicted as ${classes[predicted]} with probability ${percent(Math.max(...image.probabilities))}`;
    const like = `${image.unlike ? "un" : ""}like the training images`;
    const text = `Test image ${formatInteger(image.test)} of class ${classes[label]}: ${prediction}; ${like}.`;
    get("prediction").textContent = text;
    gallery.setAttribute("aria-valuetext", text);
    drawBars(image);
    const layer = layers[state.layer];
    await Promise.all([drawImage(index), layer && drawCam(index, layer), layer && drawMaps(index, layer)]);
    // Set last, when all parts show the image of the text.
    get("explorer").dataset.shown = `${image.test} ${layer ? layer.name : ""}`;
  }

  // One at a time, as all share the scratch canvas; of several waiting calls, only the last is run.
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

  function select(position) {
    if (!state.matches.length) return;
    state.position = Math.min(Math.max(position, 0), state.matches.length - 1);
    refresh();
    const box = get("gallery-box"), top = Math.floor(state.position / state.columns) * THUMB;
    if (top < box.scrollTop) box.scrollTop = top;
    if (top + THUMB > box.scrollTop + box.clientHeight) box.scrollTop = top + THUMB - box.clientHeight + 8;
  }

  function filter() {
    const mistakes = document.querySelector("[name=which]:checked").value === "mistakes";
    const [label, predicted] = ["true-class", "predicted-class"].map(id => get(id).value);
    const previous = state.matches[state.position];
    state.matches = images.map((_, i) => i).filter(i =>
      (!mistakes || images[i].predicted !== images[i].label)
      && (label === "" || images[i].label === +label) && (predicted === "" || images[i].predicted === +predicted));
    state.position = Math.max(state.matches.indexOf(previous), 0);
    refresh();
    select(state.position);
  }

  document.querySelectorAll("[name=which]").forEach(radio => radio.addEventListener("change", filter));
  ["true-class", "predicted-class"].forEach(id => get(id).addEventListener("change", filter));
  const move = step => select((state.position + step + state.matches.length) % Math.max(state.matches.length, 1));
  get("previous").addEventListener("click", () => move(-1));
  get("next").addEventListener("click", () => move(1));
  get("gallery").addEventListener("click", event => {
    const box = get("gallery").getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left) / THUMB), row = Math.floor((event.clientY - box.top) / THUMB);
    const position = row * state.columns + column;
    if (column < state.columns && position < state.matches.length) select(position);
  });
  get("gallery").addEventListener("keydown", event => {
    const steps = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -state.columns, ArrowDown: state.columns, Home: -Infinity, End: Infinity};
    if (!(event.key in steps)) return;
    event.preventDefault();
    const position = state.position + steps[event.key];
    // Up in the first row and down in the last do nothing.
    if (!event.key.match(/Up|Down/) || (position >= 0 && position < state.matches.length)) select(position);
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

  function showClasses(label, predicted) {
    document.querySelector("[name=which][value=all]").checked = true;
    get("true-class").value = label;
    get("predicted-class").value = predicted;
    filter();
    get("explorer").scrollIntoView({behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth"});
    get("gallery").focus({preventScroll: true});
  }

  refresh();
  addEventListener("resize", refresh);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
  return showClasses;
})();
