// A picture as a network sees it: the steps of `python -m cnn predict`, in the same integers as Pillow computes them.
//
// A picture is {data, width, height, channels}: data is a Uint8Array or Uint8ClampedArray [height, width, channels].

/**
 * Returns what the network sees of a picture with any number of pixels.
 *
 * @param picture with three channels, or one.
 * @param image of network.json: the height, width and channels that the network takes, and how pictures are made to
 *   fit: invert is "auto" (a grey picture with a light border is inverted, as the data is light on dark) or false, and
 *   resize "pad", "crop" or "stretch".
 * @returns {{pixels: Uint8Array, inverted: boolean}} pixels [height, width, channels].
 */
export function prepare(picture, image) {
  const {height, width, channels} = image;
  let shown = withChannels(picture, channels);
  const inverted = channels === 1 && image.invert === "auto" && border(shown)[0] > 127;
  if (inverted) shown = {...shown, data: shown.data.map(value => 255 - value)};
  if (shown.width !== width || shown.height !== height) {
    const fit = {pad, crop, stretch: (source, across, down) => resize(source, across, down)}[image.resize];
    shown = fit(shown, width, height);
  }
  return {pixels: new Uint8Array(shown.data), inverted};
}

/** Returns the picture in one channel, by the weights of ITU-R 601 in 16 bits, or in three. */
function withChannels(picture, channels) {
  const {data, width, height} = picture, count = width * height;
  if (picture.channels === channels) return picture;
  const other = new Uint8Array(count * channels);
  for (let i = 0; i < count; i++) {
    if (channels === 3) other.fill(data[i], 3 * i, 3 * i + 3);
    else other[i] = (19595 * data[3 * i] + 38470 * data[3 * i + 1] + 7471 * data[3 * i + 2] + 32768) >> 16;
  }
  return {data: other, width, height, channels};
}

/** Returns the median of the border's pixels, by channel; of an even number, the mean of the two in the middle. */
export function border({data, width, height, channels}) {
  const places = [];
  for (let x = 0; x < width; x++) places.push(x, (height - 1) * width + x);
  for (let y = 0; y < height; y++) places.push(y * width, y * width + width - 1);
  return Array.from({length: channels}, (_, channel) => {
    const values = Uint8Array.from(places, place => data[place * channels + channel]).sort();
    return (values[values.length / 2 - 1] + values[values.length / 2]) / 2;
  });
}

/** The whole picture, with a margin of the border's colour. */
function pad(picture, width, height) {
  const ratio = picture.width / picture.height, wanted = width / height;
  let across = width, down = height;
  if (ratio > wanted) down = roundEven(picture.height / picture.width * width);
  if (ratio < wanted) across = roundEven(picture.width / picture.height * height);
  const {channels} = picture, data = new Uint8Array(width * height * channels), colour = border(picture).map(Math.floor);
  for (let i = 0; i < data.length; i++) data[i] = colour[i % channels];
  // Of a picture that is too narrow, only the margin is left.
  if (!across || !down) return {data, width, height, channels};
  const inner = resize(picture, across, down);
  if (across === width && down === height) return inner;
  const left = across === width ? 0 : roundEven((width - across) / 2);
  const top = across === width ? roundEven((height - down) / 2) : 0;
  for (let y = 0; y < down; y++) {
    data.set(inner.data.subarray(y * across * channels, (y + 1) * across * channels), ((top + y) * width + left) * channels);
  }
  return {data, width, height, channels};
}

/** The centre of the picture. */
function crop(picture, width, height) {
  const ratio = picture.width / picture.height, wanted = width / height;
  const across = ratio > wanted ? wanted * picture.height : picture.width;
  const down = ratio < wanted ? picture.width / wanted : picture.height;
  const left = (picture.width - across) / 2, top = (picture.height - down) / 2;
  return resize(picture, width, height, [left, top, left + across, top + down]);
}

/** Rounds halves to even numbers, as Python does. */
function roundEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

/**
 * Resizes by a bicubic filter that is widened before it shrinks: Pillow's Resampling.BICUBIC, to the bit.
 *
 * @param box [left, top, right, bottom] of the part that is resized; by default, all.
 */
export function resize(picture, width, height, box = [0, 0, picture.width, picture.height]) {
  const [left, top, right, bottom] = box.map(Math.fround);
  const passes = [
    source => width === source.width && !left && right === width ? source : alongRows(source, width, left, right),
    source => height === source.height && !top && bottom === height ? source
      : transposed(alongRows(transposed(source), height, top, bottom)),
  ];
  // Pillow's order since 13.0: columns first where the height shrinks by more than twice as many pixels as the width.
  const less = picture.height - height;
  if (less > 0 && less > 2 * (picture.width - width)) passes.reverse();
  return passes.reduce((source, pass) => pass(source), picture);
}

const BITS = 22, A = -0.5;

function bicubic(x) {
  const away = Math.abs(x);
  if (away < 1) return ((A + 2) * away - (A + 3)) * away * away + 1;
  return away < 2 ? (((away - 5) * away + 8) * away - 4) * A : 0;
}

/** For each of `count` pixels, the first pixel of a row that it depends on, and their weights in units of 2^-22. */
function weights(size, count, from, to) {
  const scale = Math.fround(to - from) / count, wide = Math.max(scale, 1), support = 2 * wide;
  return Array.from({length: count}, (_, i) => {
    const centre = from + (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(size, Math.trunc(centre + support + 0.5));
    const shares = Array.from({length: end - first}, (_, x) => bicubic((x + first - centre + 0.5) * (1 / wide)));
    const sum = shares.reduce((total, share) => total + share, 0);
    return {first, shares: Float64Array.from(shares, share => {
      const whole = share / sum * 2 ** BITS;
      return Math.trunc(whole + (whole < 0 ? -0.5 : 0.5));
    })};
  });
}

function alongRows({data, width, height, channels}, count, from, to) {
  const result = new Uint8ClampedArray(count * height * channels), half = 2 ** (BITS - 1);
  weights(width, count, from, to).forEach(({first, shares}, x) => {
    for (let y = 0; y < height; y++) for (let channel = 0; channel < channels; channel++) {
      let sum = half, place = (y * width + first) * channels + channel;
      for (let i = 0; i < shares.length; i++, place += channels) sum += data[place] * shares[i];
      result[(y * count + x) * channels + channel] = Math.floor(sum / 2 ** BITS);
    }
  });
  return {data: result, width: count, height, channels};
}

function transposed({data, width, height, channels}) {
  const result = new Uint8ClampedArray(data.length);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) for (let channel = 0; channel < channels; channel++) {
    result[(x * height + y) * channels + channel] = data[(y * width + x) * channels + channel];
  }
  return {data: result, width: height, height: width, channels};
}
