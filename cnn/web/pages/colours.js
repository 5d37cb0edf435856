// Colour maps, and pictures of numbers in them. They are Matplotlib's viridis, inferno, RdBu and gray.

const SCALES = {
  // Feature maps, from the lowest value (or 0) to the highest.
  maps: "440154 470d60 48186a 482374 472d7b 453781 424086 3e4989 3b528b 375b8d 33638d 2f6b8e 2c728e 297a8e 26828e 23898e "
    + "21918c 1f988b 1fa088 22a785 28ae80 32b67a 3fbc73 4ec36b 5ec962 70cf57 84d44b 98d83e addc30 c2df23 d8e219 ece51b fde725",
  // Evidence for a class.
  heat: "000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754 d24644 e45a31 f1731d f98e09 fcac11 f9cb35 f2ea69 fcffa4",
  // Weights, from the most negative in blue to the most positive in red.
  signed: "053061 175290 2a71b2 3f8ec0 6bacd1 9bc9e0 c2ddec e0ecf3 f7f6f6 fbe5d8 fbccb4 f5aa89 e48066 d05548 ba2832 930e26 67001f",
  // Pixels, from black to white.
  grey: "000000 ffffff",
};

/** By name, 256 colours as little-endian RGBA of 32 bits. */
const TABLES = Object.fromEntries(Object.entries(SCALES).map(([name, text]) => {
  const stops = text.split(" ").map(hex => [0, 2, 4].map(i => parseInt(hex.slice(i, i + 2), 16)));
  return [name, Uint32Array.from({length: 256}, (_, i) => {
    const position = i / 255 * (stops.length - 1), low = Math.min(Math.floor(position), stops.length - 2);
    const [red, green, blue] = stops[low].map((part, k) => Math.round(part + (position - low) * (stops[low + 1][k] - part)));
    return (255 << 24 | blue << 16 | green << 8 | red) >>> 0;
  })];
}));

/** Returns the lowest and highest of some values, and 0. */
export function range(values) {
  let low = 0, high = 0;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

/** Returns the colour of a share from 0 to 1 of a scale, RGBA of 32 bits. */
export const mix = (scale, share) => TABLES[scale][Math.round(255 * Math.min(Math.max(share, 0), 1))];

/** Returns a colour, RGBA of 32 bits, for CSS. */
export function css(colour) {
  return `rgb(${colour & 255} ${colour >> 8 & 255} ${colour >> 16 & 255})`;
}

/** Returns white or black, whichever is in higher contrast to a colour, RGBA of 32 bits: at least 4.5 (WCAG 2). */
export function inkOn(colour) {
  const [red, green, blue] = [0, 8, 16].map(shift => ((colour >> shift & 255) / 255) ** 2.2);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.179 ? "#ffffff" : "#000000";
}

const scratch = document.createElement("canvas").getContext("2d");

/** Draws an ImageData into a canvas, each pixel as a square of `zoom` pixels. */
export function magnify(canvas, picture, zoom) {
  Object.assign(scratch.canvas, {width: picture.width, height: picture.height});
  scratch.putImageData(picture, 0, 0);
  Object.assign(canvas, {width: picture.width * zoom, height: picture.height * zoom});
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(scratch.canvas, 0, 0, canvas.width, canvas.height);
}

/** Returns an ImageData of one map's values [height, width], from the colour of `low` to that of `high`. */
export function mapPicture(values, width, height, low, high) {
  const result = new ImageData(width, height), pixels = new Uint32Array(result.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = mix("maps", (values[i] - low) / (high - low || 1));
  return result;
}

/** Draws a frame around a part of a canvas, in its pixels. */
export function frame(canvas, left, top, width, height, thickness) {
  const context = canvas.getContext("2d");
  context.lineWidth = thickness;
  context.strokeStyle = getComputedStyle(canvas).getPropertyValue("--vermillion");
  context.strokeRect(left, top, width, height);
}

/** Returns an ImageData of pixels, Uint8 [height, width, channels]; grey ones as dark on white if `inverted`. */
export function picture(pixels, width, height, channels, inverted = false) {
  const result = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) for (let part = 0; part < 4; part++) {
    const value = pixels[i * channels + (channels === 3 ? part : 0)];
    result.data[4 * i + part] = part === 3 ? 255 : inverted ? 255 - value : value;
  }
  return result;
}
