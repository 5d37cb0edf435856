// One number of a feature map, step by step: the window, the kernel, the products, their sum, the activation; then the
// window of the pooling. All numbers are the network's own.
import {css, inkOn, mix, range} from "./colours.js";

/** Returns the first convolution of the images, and the pooling of its maps, if the network has them. */
export function firstLayers(facts) {
  const conv = facts.layers.find(layer => layer.kind === "Conv" && layer.inputs[0] === null);
  const pool = conv && facts.layers.find(layer => layer.kind === "MaxPool" && layer.inputs[0] === conv.name);
  return {conv, pool};
}

/** Returns the first row and column of the window of an output's pixel; they may be outside of the image. */
export function windowAt(layer, image, row, column) {
  const [size, stride] = [layer.kernel.slice(0, 2), layer.strides];
  return [[row, image.height], [column, image.width]].map(([place, length], axis) => {
    const missing = Math.max((Math.ceil(length / stride[axis]) - 1) * stride[axis] + size[axis] - length, 0);
    return place * stride[axis] - (layer.padding === "SAME" ? Math.floor(missing / 2) : 0);
  });
}

/**
 * Computes one number of a map.
 *
 * @returns {{channels, sum, bias, total, isInside}} of each channel of the image its window, kernel and products, arrays
 *   of rows; and a function that says whether a row and a column of the window are inside of the image.
 */
export function convolve(layer, image, pixels, {kernel, bias}, row, column, map) {
  const [height, width, channels, features] = layer.kernel, [top, left] = windowAt(layer, image, row, column);
  const rows = (channel, value) => Array.from({length: height}, (_, y) =>
    Array.from({length: width}, (_, x) => value(channel, y, x)));
  const isInside = (y, x) => top + y >= 0 && left + x >= 0 && top + y < image.height && left + x < image.width;
  const pixel = (channel, y, x) =>
    isInside(y, x) ? pixels[((top + y) * image.width + left + x) * channels + channel] / 255 : 0;
  const weight = (channel, y, x) => kernel[((y * width + x) * channels + channel) * features + map];
  const parts = Array.from({length: channels}, (_, channel) => ({
    window: rows(channel, pixel),
    kernel: rows(channel, weight),
    products: rows(channel, (c, y, x) => pixel(c, y, x) * weight(c, y, x)),
  }));
  const sum = parts.flatMap(part => part.products.flat()).reduce((total, value) => total + value, 0);
  return {channels: parts, sum, bias: bias ? bias[map] : 0, total: sum + (bias ? bias[map] : 0), isInside};
}

/** Returns the values of a map in a pooling's window: rows; and the row and column of the result. */
export function poolWindow(pool, {values, shape: [, height, width]}, row, column, map) {
  const [down, across] = pool.window, place = [Math.floor(row / down), Math.floor(column / across)];
  if (place[0] >= pool.shape[0] || place[1] >= pool.shape[1]) return null;
  const rows = Array.from({length: down}, (_, y) => Array.from({length: across}, (_, x) =>
    values[(map * height + place[0] * down + y) * width + place[1] * across + x]));
  return {rows, place};
}

/** Returns a number in three decimals, with a minus sign as wide as a digit. */
export const format = value => value.toFixed(3).replace("-", "−").replace(/^−(0\.000)$/, "$1");

/**
 * Returns a table of numbers in colours.
 *
 * @param scale of colours.js; "signed" is centred at 0.
 * @param limit the number of the last colour.
 * @param classOf returns the class of the cell of a row and a column.
 */
export function numberTable(caption, rows, scale, limit, classOf = () => "") {
  const table = document.createElement("table"), title = document.createElement("caption");
  table.className = "numbers";
  title.textContent = caption;
  table.append(title, ...rows.map((row, y) => {
    const line = document.createElement("tr");
    line.append(...row.map((value, x) => {
      const cell = document.createElement("td");
      const share = scale === "signed" ? (value / (limit || 1) + 1) / 2 : value / (limit || 1);
      const colour = mix(scale, share);
      cell.textContent = format(value);
      cell.style.background = css(colour);
      cell.style.color = inkOn(colour);
      cell.className = classOf(y, x);
      return cell;
    }));
    return line;
  }));
  return table;
}

/** Returns the largest magnitude of some rows. */
export const magnitude = rows => Math.max(...range(rows.flat()).map(Math.abs));
