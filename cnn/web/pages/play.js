// The page: a picture from the pad, a file, the camera or the test images; the network's answer, and all of its layers.
import {className, makeAnswer} from "./answer.js";
import {picture} from "./colours.js";
import {makeLayers} from "./maps.js";
import {loadNetwork} from "./network.js";
import {makePad} from "./pad.js";
import {frameOf, readFile, startCamera} from "./sources.js";
import {loadSheet} from "./sheets.js";
import {makeStepper} from "./stepper.js";
import {chooseLanguage, integer, percent, text} from "./texts.js";

const get = id => document.getElementById(id);
const language = chooseLanguage();
// Sets what is not in the page's own texts again; start() replaces it.
let translate = () => {};
for (const radio of document.querySelectorAll("[name=language]")) {
  radio.checked = radio.value === language;
  radio.addEventListener("change", () => {
    chooseLanguage(radio.value);
    translate();
  });
}

/** Shows a problem in a line; none without arguments. */
function problem(name = "", values = {}) {
  get("problem").textContent = name && text(name, values);
}

async function start() {
  if (location.protocol === "file:") return problem("fileScheme");
  const network = await loadNetwork().catch(error => problem("failed", {problem: error.message}));
  if (!network) return get("prediction").replaceChildren();
  const {facts} = network, {image} = facts;

  // What is shown: `read` returns what the network sees of it, {pixels, inverted}.
  const shown = {read: null, seen: null, answer: null, example: null, time: null};
  const pad = makePad(get("pad"), image, time => {
    stopCamera();
    if (shown.example !== null || location.hash) history.pushState(null, "", "#");
    markExample(null);
    problem();
    show(() => network.see(pad.picture()), time);
  });
  // What the pad had when one went back to a test image; forward shows it again.
  let drawn = null;

  // One at a time: of several changes, the last one is shown.
  let running = false, waiting = false;
  async function refresh() {
    waiting = true;
    if (running) return;
    running = true;
    while (waiting) {
      waiting = false;
      try {
        await draw();
      } catch (error) {
        problem("failed", {problem: error.message});
      }
      // Input events come first.
      await new Promise(requestAnimationFrame);
    }
    running = false;
  }

  function show(read, time = performance.now()) {
    Object.assign(shown, {read, seen: null, time: shown.time ?? time});
    refresh();
  }

  async function draw() {
    const {time} = shown;
    shown.time = null;
    shown.seen ??= shown.read();
    const {seen} = shown, names = new Set([...layers.visible(), ...stepper.needed]);
    if (facts.novelty) names.add(facts.novelty.layer);
    const answer = {...seen, ...await network.run(seen.pixels, [...names])};
    shown.answer = answer;
    drawAnswer(answer, shown.example === null && pad.empty);
    if (time !== null) performance.measure("stroke to bars", {start: time, end: performance.now()});
    layers.draw(answer.maps);
    stepper.draw(answer);
    if (time !== null) performance.measure("stroke to maps", {start: time, end: performance.now()});
    document.body.dataset.shown = Number(document.body.dataset.shown ?? 0) + 1;
  }

  const [exampleSheet, nearestSheet] = await Promise.all([
    facts.examples && loadSheet(facts.examples, image.channels), facts.novelty && loadSheet(facts.novelty, image.channels)]);
  const drawAnswer = makeAnswer(network, get, nearestSheet);
  const layers = makeLayers(network, get("layers"), refresh);
  const stepper = await makeStepper(network, get, () => shown.answer, (name, map) => layers.choose(name, map));

  translate = () => {
    layers.translate();
    stepper.translate();
    const lead = get("lead");
    lead.textContent = text("lead", {name: `${facts.name} (${facts.run})`});
    const accuracy = facts.result?.test_accuracy;
    get("card-text").textContent = text("cardText", {
      parameters: integer(facts.parameters),
      accuracy: accuracy === undefined ? "" : text("testAccuracy", {share: percent(accuracy)}),
    });
    get("runtime").textContent = text("runtime", facts.runtime);
    get("credit").hidden = !facts.korean;
    for (const [i, radio] of [...get("examples").querySelectorAll("input")].entries()) {
      const values = {index: integer(facts.examples.indices[i]), class: className(facts, facts.examples.labels[i])};
      radio.setAttribute("aria-label", text("example", values));
      radio.parentElement.title = text("example", values);
    }
    get("camera").textContent = text(stopVideo ? "stopCamera" : "camera");
    if (shown.answer) refresh();
  };

  // Test images: the network's input as it is.
  function showExample(i) {
    const {width, height, channels} = image, pixels = exampleSheet.pixels(i);
    stopCamera();
    if (shown.example === null && !pad.empty) drawn = pad.snapshot();
    problem();
    const visible = picture(pixels, width, height, channels, channels === 1 && image.invert === "auto");
    createImageBitmap(visible).then(bitmap => pad.show(bitmap, width, height));
    markExample(i);
    show(() => ({pixels, inverted: false}));
  }

  function markExample(i) {
    shown.example = i;
    for (const [j, radio] of [...get("examples").querySelectorAll("input")].entries()) radio.checked = i === j;
  }

  if (exampleSheet) {
    get("examples").append(...facts.examples.indices.map((_, i) => {
      const label = document.createElement("label"), radio = document.createElement("input"), canvas = document.createElement("canvas");
      Object.assign(radio, {type: "radio", name: "example", value: i});
      exampleSheet.paint(canvas, i, image.channels === 1 && image.invert === "auto");
      label.append(radio, canvas);
      radio.addEventListener("change", () => {
        history.pushState(null, "", `#test-${facts.examples.indices[i]}`);
        showExample(i);
      });
      return label;
    }));
    get("examples-box").hidden = false;
  }

  /** Shows what the address says: a test image, or else what was drawn. */
  function follow() {
    const index = Number(location.hash.match(/^#test-(\d+)$/)?.[1] ?? NaN), i = facts.examples?.indices.indexOf(index) ?? -1;
    if (i >= 0) return showExample(i);
    stopCamera();
    markExample(null);
    if (drawn) pad.restore(drawn);
    show(() => network.see(pad.picture()));
  }
  addEventListener("popstate", follow);

  // The tools of the pad.
  for (const radio of document.querySelectorAll("[name=tool]")) {
    radio.addEventListener("change", () => { pad.erasing = radio.value === "eraser"; });
  }
  function take(tool) {
    document.querySelector(`[name=tool][value=${tool}]`).checked = true;
    pad.erasing = tool === "eraser";
  }
  get("size").addEventListener("input", () => { pad.size = get("size").value * Math.max(image.width, image.height) / 28; });
  get("colour-box").hidden = image.channels === 1;
  get("colour").addEventListener("input", () => { pad.colour = get("colour").value; });
  get("undo").addEventListener("click", event => pad.undo(event.timeStamp));
  get("clear").addEventListener("click", event => pad.clear(event.timeStamp));
  const keys = {b: () => take("brush"), e: () => take("eraser"), u: time => pad.undo(time), Delete: time => pad.clear(time)};
  get("pad").addEventListener("keydown", event => {
    const isUndo = event.key === "z" && (event.ctrlKey || event.metaKey);
    if (!isUndo && (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(keys, event.key))) return;
    event.preventDefault();
    keys[isUndo ? "u" : event.key](event.timeStamp);
  });

  // Files: chosen, dropped or pasted.
  async function open(file) {
    if (!file) return;
    problem();
    try {
      const read = await readFile(file), {source, ...pixels} = read;
      stopCamera();
      pad.show(source, read.width, read.height);
      source.close();
      if (location.hash) history.pushState(null, "", "#");
      markExample(null);
      show(() => network.see(pixels));
    } catch (error) {
      problem(error.message, {name: file.name});
    }
  }
  get("file").addEventListener("change", () => {
    open(get("file").files[0]);
    // The same file can be chosen again.
    get("file").value = "";
  });
  addEventListener("dragover", event => event.preventDefault());
  addEventListener("drop", event => {
    event.preventDefault();
    open(event.dataTransfer.files[0]);
  });
  addEventListener("paste", event => open(event.clipboardData.files[0]));

  // The camera: frames are shown as fast as they are answered, until it is stopped; the last one stays.
  let stopVideo = null;
  function stopCamera() {
    if (!stopVideo) return;
    const video = get("video"), {data, width, height} = frameOf(video, image);
    pad.show(video, video.videoWidth, video.videoHeight, true);
    show(() => network.see({data, width, height, channels: 3}));
    stopVideo();
    stopVideo = null;
    video.hidden = true;
    get("camera").setAttribute("aria-pressed", "false");
    get("camera").textContent = text("camera");
  }
  get("camera").addEventListener("click", async () => {
    if (stopVideo) return stopCamera();
    problem();
    const video = get("video");
    video.hidden = false;
    try {
      stopVideo = await startCamera(video);
    } catch (error) {
      video.hidden = true;
      return problem(error.message);
    }
    markExample(null);
    pad.empty = false;
    get("camera").setAttribute("aria-pressed", "true");
    get("camera").textContent = text("stopCamera");
    while (stopVideo) {
      show(() => network.see(frameOf(video, image)));
      await new Promise(resolve => video.requestVideoFrameCallback?.(resolve) ?? setTimeout(resolve, 50));
    }
  });
  addEventListener("pagehide", stopCamera);

  translate();
  new ResizeObserver(refresh).observe(get("layers"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
  document.querySelector("main").removeAttribute("aria-busy");
  // For the console.
  globalThis.play = {network, get answer() { return shown.answer; }};
  if (!location.hash && exampleSheet) history.replaceState(null, "", `#test-${facts.examples.indices[0]}`);
  follow();
}

start().catch(error => problem("failed", {problem: error.message}));
