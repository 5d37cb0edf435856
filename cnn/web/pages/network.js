// The network of the page: its facts, and its answer to a picture. It runs here, by onnxruntime's WebAssembly.
import * as ort from "./ort/ort.wasm.min.mjs";
import {prepare} from "./pixels.js";

/**
 * Loads the network; an Error of one line if a file of the folder is missing or this browser cannot run it.
 *
 * @returns an object with `facts` (network.json), `layers` by name, `see`, `run`, `kernel` and `nearest`.
 */
export async function loadNetwork() {
  const facts = await (await fetchFile("network.json")).json();
  // One thread: more need headers that a static host does not send.
  Object.assign(ort.env.wasm, {numThreads: 1, wasmPaths: new URL("./ort/", import.meta.url).href});
  const [session, reference] = await Promise.all([
    fetchFile("network.onnx").then(file => file.arrayBuffer()).then(file => ort.InferenceSession.create(file)),
    facts.novelty && fetchFile(facts.novelty.file).then(file => file.arrayBuffer()).then(fromFloat16),
  ]);
  const {height, width, channels} = facts.image;
  const layers = new Map(facts.layers.map(layer => [layer.name, layer]));
  const tensors = pixels => ({images: new ort.Tensor("uint8", pixels, [1, height, width, channels])});
  const blank = tensors(new Uint8Array(height * width * channels)), constants = new Map();

  // One after the other, as the session has one memory.
  let last = Promise.resolve();
  function inTurn(feeds, names) {
    const result = last.then(() => session.run(feeds, names));
    last = result.catch(() => {});
    return result;
  }

  return {
    facts,
    layers,

    /** Returns {pixels, inverted}: what the network sees of a picture. */
    see: picture => prepare(picture, facts.image),

    /**
     * Returns the network's answer to pixels: {probabilities, maps, evidence}.
     *
     * @param names of the layers whose outputs are in `maps`, by name, each {values, shape: [channels, height, width]}.
     */
    async run(pixels, names) {
      const outputs = ["probabilities", ...names.map(name => `layers/${name}`)];
      if (facts.grad_cam) outputs.push("grad_cam");
      const results = await inTurn(tensors(pixels), outputs);
      const maps = new Map(names.map(name => [name, asMaps(results[`layers/${name}`].data, layers.get(name))]));
      return {probabilities: results.probabilities.data, maps, evidence: results.grad_cam ?? null};
    },

    /** Returns the kernel and bias of a layer: {kernel, bias}, Float32Arrays; the bias is null if it has none. */
    constants(name) {
      if (!constants.has(name)) {
        const outputs = [`kernels/${name}`, ...layers.get(name).bias ? [`biases/${name}`] : []];
        constants.set(name, inTurn(blank, outputs).then(results => (
          {kernel: results[outputs[0]].data, bias: results[outputs[1]]?.data ?? null})));
      }
      return constants.get(name);
    },

    /** Returns the nearest training images: [{position, distance}], and whether the picture is unlike them all. */
    nearest(maps, count) {
      const features = unit(means(maps.get(facts.novelty.layer)));
      const squares = new Float64Array(facts.novelty.images), size = features.length;
      for (let i = 0; i < squares.length; i++) {
        for (let j = 0, at = i * size; j < size; j++) squares[i] += (reference[at + j] - features[j]) ** 2;
      }
      const found = Array.from(squares.keys()).sort((a, b) => squares[a] - squares[b] || a - b).slice(0, count)
        .map(position => ({position, distance: Math.sqrt(squares[position])}));
      return {found, unlike: found[0].distance > facts.novelty.threshold};
    },
  };
}

/** Returns a file of the folder as a Response; an Error of one line if it is missing. */
export async function fetchFile(name) {
  const file = await fetch(new URL(name, import.meta.url));
  if (!file.ok) throw new Error(`${name}: ${file.status} ${file.statusText}`);
  return file;
}

/** Returns [channels, height, width] of a layer's maps: tokens get their places in the image back, steps are in a column. */
export function mapsShape({shape: [first, ...rest], grid}) {
  if (rest.length === 2) return [rest[1], first, rest[0]];
  return rest.length ? [rest[0], ...grid ?? [first, 1]] : [first, 1, 1];
}

/** A layer's output as maps: {values, shape: [channels, height, width]}. */
function asMaps(values, layer) {
  const shape = mapsShape(layer), [channels, height, width] = shape, places = height * width;
  if (layer.shape.length !== 2) return {values, shape};
  const maps = new Float32Array(values.length);
  for (let place = 0; place < places; place++) for (let channel = 0; channel < channels; channel++) {
    maps[channel * places + place] = values[place * channels + channel];
  }
  return {values: maps, shape};
}

/** The mean of each map. */
function means({values, shape: [channels, height, width]}) {
  const size = height * width;
  return Float32Array.from({length: channels}, (_, channel) =>
    values.subarray(channel * size, (channel + 1) * size).reduce((sum, value) => sum + value, 0) / size);
}

/** Returns the values, with length 1 as a vector. */
export function unit(values) {
  // There may be more of them than a call takes arguments.
  const length = Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0));
  return length ? values.map(value => value / length) : values;
}

/** Reads numbers of 16 bits, with the low byte first, as all browsers have no type for them. */
function fromFloat16(buffer) {
  return Float32Array.from(new Uint16Array(buffer), bits => {
    const exponent = bits >> 10 & 31, fraction = bits & 1023, sign = bits >> 15 ? -1 : 1;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * fraction / 1024);
  });
}
