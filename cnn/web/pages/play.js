// The page: a picture from the pad, a file, the camera or the test images; the network's answer, and all of its layers.
import {className, makeAnswer} from "./answer.js";
import {picture} from "./colours.js";
import {makeLayers} from "./maps.js";
import {loadNetwork} from "./network.js";
import {makePad} from "./pad.js";
import {border} from "./pixels.js";
import {loadSheet} from "./sheets.js";
import {frameOf, readFile, startCamera} from "./sources.js";
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
  get("prediction").textContent = text("loading");
  const network = await loadNetwork();
  const {facts} = network, {image} = facts, {examples} = facts;
  // Grey images of published data are light on dark; on the pad they are dark on white, as a drawing.
  const isInverted = image.channels === 1 && image.invert === "auto";

  // What is shown: a view, with `read`, which returns what the network sees of it, {pixels, inverted}, and `example`, the
  // position of a test image or null; what was seen and answered; and the time of the event that is not answered yet.
  const shown = {view: null, seen: null, answer: null, time: null};
  const drawing = {read: () => network.see(pad.picture()), example: null};
  const pad = makePad(get("pad"), image, time => {
    turn++;
    endCamera();
    const view = pad.view ?? drawing;
    go(view.example === null ? "" : address(view.example));
    show(view, time);
  });
  // What was on the pad when one went back to a test image; forward shows it again.
  let drawn = null;
  // Counts what the user does, so that a file that is read late does not replace what came after it.
  let turn = 0;

  const address = i => `test-${examples.indices[i]}`;
  function go(hash) {
    if (location.hash !== (hash && `#${hash}`)) history.pushState(null, "", `#${hash}`);
  }

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
        problem("broken", {problem: error.message});
      }
      // Input events come first.
      await new Promise(requestAnimationFrame);
    }
    running = false;
  }

  function show(view, time = performance.now()) {
    problem();
    Object.assign(shown, {view, seen: null, time: shown.time ?? time});
    for (const [i, radio] of [...get("examples").querySelectorAll("input")].entries()) radio.checked = i === view.example;
    refresh();
  }

  async function draw() {
    const {time, view} = shown, isEmpty = view === drawing && pad.empty;
    shown.time = null;
    shown.seen ??= view.read();
    const {seen} = shown, names = new Set([...layers.visible(), ...stepper.needed]);
    if (facts.novelty) names.add(facts.novelty.layer);
    const answer = {...seen, ...await network.run(seen.pixels, [...names])};
    shown.answer = answer;
    drawAnswer(answer, isEmpty, view.example);
    if (time !== null) performance.measure("stroke to bars", {start: time, end: performance.now()});
    layers.draw(answer.maps);
    stepper.draw(answer);
    if (time !== null) performance.measure("stroke to maps", {start: time, end: performance.now()});
    document.body.dataset.shown = Number(document.body.dataset.shown ?? 0) + 1;
  }

  const [exampleSheet, nearestSheet] = await Promise.all([
    examples && loadSheet(examples, image.channels), facts.novelty && loadSheet(facts.novelty, image.channels)]);
  const drawAnswer = makeAnswer(network, get, nearestSheet);
  const layers = makeLayers(network, get("layers"), refresh, (name, map) => stepper.select(name, map));
  const stepper = await makeStepper(network, get, () => shown.answer, (name, map) => layers.choose(name, map));

  translate = () => {
    layers.translate();
    stepper.translate();
    get("lead").textContent = text("lead", {name: facts.run === facts.name ? facts.name : `${facts.name} (${facts.run})`});
    const accuracy = facts.result?.test_accuracy;
    get("card-text").textContent = text("cardText", {
      parameters: integer(facts.parameters),
      accuracy: accuracy === undefined ? "" : text("testAccuracy", {share: percent(accuracy)}),
    });
    get("runtime").textContent = text("runtime", facts.runtime);
    get("credit").hidden = !facts.korean;
    for (const [i, radio] of [...get("examples").querySelectorAll("input")].entries()) {
      const values = {index: integer(examples.indices[i]), class: className(facts, examples.labels[i])};
      radio.setAttribute("aria-label", text("example", values));
      radio.parentElement.title = text("example", values);
    }
    get("camera").textContent = text(stopVideo ? "stopCamera" : "camera");
    if (shown.answer) refresh();
  };

  /** Shows a test image, pixel for pixel; the first stroke on one that the page began with replaces it. */
  function showExample(i, replaced = false) {
    const {width, height, channels} = image, pixels = exampleSheet.pixels(i);
    turn++;
    endCamera();
    if (shown.view?.example === null) drawn = pad.snapshot();
    const view = {read: () => ({pixels, inverted: false}), example: i, replaced};
    const sheet = new OffscreenCanvas(width, height);
    sheet.getContext("2d").putImageData(picture(pixels, width, height, channels, isInverted), 0, 0);
    pad.show(sheet, width, height, view);
    show(view);
  }

  if (exampleSheet) {
    get("examples").append(...examples.indices.map((_, i) => {
      const [label, radio, canvas] = ["label", "input", "canvas"].map(tag => document.createElement(tag));
      Object.assign(radio, {type: "radio", name: "example", value: i});
      exampleSheet.paint(canvas, i, isInverted);
      label.append(radio, canvas);
      radio.addEventListener("change", () => {
        go(address(i));
        showExample(i);
      });
      return label;
    }));
    get("examples-box").hidden = false;
  }

  /** Shows what the address says: a test image, or else what was drawn. */
  function follow(replaced = false) {
    const index = Number(location.hash.match(/^#test-(\d+)$/)?.[1] ?? NaN), i = examples?.indices.indexOf(index) ?? -1;
    if (i >= 0) return showExample(i, replaced);
    turn++;
    endCamera();
    if (drawn) pad.restore(drawn);
    show(pad.view ?? drawing);
  }
  addEventListener("popstate", () => follow());

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
    const mine = ++turn;
    try {
      const {source, ...pixels} = await readFile(file);
      if (mine === turn) {
        endCamera();
        const seen = network.see(pixels), view = {read: () => seen, example: null};
        pad.show(source, pixels.width, pixels.height, view, {margin: `rgb(${border(pixels).join(" ")})`});
        go("");
        show(view);
      }
      source.close();
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

  // The camera: frames are answered one after the other until it is stopped; the last one stays.
  let stopVideo = null;
  function endCamera() {
    if (!stopVideo) return;
    stopVideo();
    stopVideo = null;
    get("video").hidden = true;
    get("camera").setAttribute("aria-pressed", "false");
    get("camera").textContent = text("camera");
  }
  function keepFrame() {
    const video = get("video"), seen = network.see(frameOf(video, image)), view = {read: () => seen, example: null};
    pad.show(video, video.videoWidth, video.videoHeight, view, {isCropped: true});
    endCamera();
    show(view);
  }
  get("camera").addEventListener("click", async () => {
    if (stopVideo) return keepFrame();
    const video = get("video"), mine = ++turn;
    problem();
    video.hidden = false;
    get("camera").disabled = true;
    try {
      const stop = await startCamera(video);
      if (mine !== turn) stop();
      else stopVideo = stop;
    } catch (error) {
      problem(error.message);
    }
    get("camera").disabled = false;
    video.hidden = !stopVideo;
    if (!stopVideo) return;
    const session = stopVideo;
    go("");
    get("camera").setAttribute("aria-pressed", "true");
    get("camera").textContent = text("stopCamera");
    while (stopVideo === session) {
      show({read: () => network.see(frameOf(video, image)), example: null});
      await new Promise(resolve => video.requestVideoFrameCallback?.(resolve) ?? setTimeout(resolve, 50));
    }
  });
  addEventListener("pagehide", endCamera);

  translate();
  new ResizeObserver(refresh).observe(get("layers"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
  get("card").addEventListener("toggle", async () => {
    const file = await fetch(new URL("README.md", import.meta.url));
    get("card").querySelector("pre").textContent = file.ok ? await file.text() : "";
  }, {once: true});
  document.querySelector("main").removeAttribute("aria-busy");
  // For the console.
  globalThis.play = {network, get answer() { return shown.answer; }};
  const isFirst = !location.hash && exampleSheet;
  if (isFirst) history.replaceState(null, "", `#${address(0)}`);
  follow(isFirst);
}

start().catch(error => {
  problem("failed", {problem: error.message});
  get("prediction").replaceChildren();
});
