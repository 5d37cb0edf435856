// Pictures from files and from the camera, in the pixels of pixels.js.
import {withoutAlpha} from "./pad.js";

const MAX_PIXELS = 40_000_000, MAX_BYTES = 32 * 2 ** 20;

/** Returns the picture in a file, upright, on white where it is transparent; an Error of one line if it has none. */
export async function readFile(file) {
  if (file.size > MAX_BYTES) throw new Error("tooLarge");
  // Neither the colour profile nor the alpha channel changes the pixels.
  const bitmap = await createImageBitmap(file, {colorSpaceConversion: "none", premultiplyAlpha: "none"}).catch(() => {
    throw new Error("notAPicture");
  });
  try {
    if (bitmap.width * bitmap.height > MAX_PIXELS) throw new Error("tooLarge");
    return {...pixelsOf(bitmap, bitmap.width, bitmap.height), source: bitmap};
  } catch (error) {
    bitmap.close();
    throw error;
  }
}

/** Returns a part of a bitmap or a video as a picture. */
export function pixelsOf(source, width, height, [left, top, across, down] = [0, 0, width, height]) {
  const context = new OffscreenCanvas(across, down).getContext("2d", {willReadFrequently: true});
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, across, down);
  context.drawImage(source, left, top, across, down, 0, 0, across, down);
  return {data: withoutAlpha(context.getImageData(0, 0, across, down).data), width: across, height: down, channels: 3};
}

/** Starts the camera in a video element; returns a function that stops it. */
export async function startCamera(video) {
  if (!navigator.mediaDevices) throw new Error("noCamera");
  const stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment"}}).catch(() => {
    throw new Error("noCamera");
  });
  const stop = () => {
    stream.getTracks().forEach(track => track.stop());
    video.srcObject = null;
  };
  video.srcObject = stream;
  await video.play().catch(() => {
    stop();
    throw new Error("noCamera");
  });
  return stop;
}

/** Returns the centre of a video's frame, as large as fits, in the shape of the network's images. */
export function frameOf(video, {width, height}) {
  const scale = Math.min(video.videoWidth / width, video.videoHeight / height);
  const across = Math.floor(width * scale), down = Math.floor(height * scale);
  const left = Math.floor((video.videoWidth - across) / 2), top = Math.floor((video.videoHeight - down) / 2);
  return pixelsOf(video, video.videoWidth, video.videoHeight, [left, top, across, down]);
}
