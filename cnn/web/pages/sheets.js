// Pictures that lie in the rows of one file.
import {magnify, mix, picture} from "./colours.js";
import {fetchFile} from "./network.js";
import {withoutAlpha} from "./pad.js";

/**
 * Loads a sheet of pictures.
 *
 * @param facts of network.json: `sheet`, the name of the file, `columns`, `height` and `width` of a picture.
 * @param channels 1 or 3 of a picture's pixels.
 * @returns {{pixels: function, paint: function}} the pixels of the i-th picture, Uint8 [height, width, channels], and a
 *   function that draws it into a canvas.
 */
export async function loadSheet({sheet, columns, height, width}, channels) {
  const file = await fetchFile(sheet);
  const bitmap = await createImageBitmap(await file.blob(), {colorSpaceConversion: "none", premultiplyAlpha: "none"});
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", {willReadFrequently: true});
  context.drawImage(bitmap, 0, 0);
  bitmap.close();

  function pixels(i) {
    const {data} = context.getImageData(i % columns * width, Math.floor(i / columns) * height, width, height);
    const colour = withoutAlpha(data);
    return channels === 3 ? colour : colour.filter((_, part) => part % 3 === 0);
  }

  return {
    pixels,
    paint(canvas, i, inverted) {
      magnify(canvas, picture(pixels(i), width, height, channels, inverted), 1);
    },
  };
}

/**
 * Draws evidence over the picture in a context.
 *
 * @param values at least 0, [height, width].
 * @param most the largest of them.
 */
export function drawHeat(context, values, width, height, most) {
  const overlay = new ImageData(width, height), pixels = new Uint32Array(overlay.data.buffer);
  values.forEach((value, i) => { pixels[i] = mix("heat", value / (most || 1)); });
  for (let i = 3; i < overlay.data.length; i += 4) overlay.data[i] = 165;
  const small = new OffscreenCanvas(width, height);
  small.getContext("2d").putImageData(overlay, 0, 0);
  context.imageSmoothingEnabled = true;
  context.drawImage(small, 0, 0, context.canvas.width, context.canvas.height);
}
