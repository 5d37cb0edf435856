// The pad: a picture that one draws, with the mouse, a finger, a pen or the keyboard.

const UNDO = 30;

/**
 * Makes a canvas a pad with white paper.
 *
 * @param canvas on which is drawn.
 * @param image of network.json: a pixel of the network is a square on the pad.
 * @param changed called after each change of the picture, with the time of the event that made it.
 * @returns an object with `show`, `clear`, `undo`, `snapshot`, `restore`, `picture`, and the fields `erasing`, `colour`,
 *   `size`, the brush's width in pixels of the network, `empty`, and `view`: null if what is on the pad was drawn.
 */
export function makePad(canvas, image, changed) {
  const longest = Math.max(image.width, image.height), zoom = Math.max(1, Math.round(280 / longest));
  Object.assign(canvas, {width: image.width * zoom, height: image.height * zoom});
  const context = canvas.getContext("2d", {willReadFrequently: true});
  // A tall pad is as high as a wide one is wide.
  canvas.parentElement.style.maxWidth = `${22 * Math.min(1, image.width / image.height)}rem`;
  const past = [], pad = {erasing: false, colour: "#000000", size: 2 * longest / 28, empty: true, view: null};
  // Where the keyboard draws, in pixels of the network, and whether its brush touches the paper.
  const cursor = {x: image.width / 2, y: image.height / 2, down: false, shown: false};
  let at = null;

  function paper(colour = "#ffffff") {
    context.fillStyle = colour;
    context.fillRect(0, 0, canvas.width, canvas.height);
  }

  function keep() {
    past.push(pad.snapshot());
    if (past.length > UNDO) past.shift();
  }

  // What is drawn is the pad's own picture; the first stroke on the picture that the page began with replaces it.
  function begin() {
    keep();
    if (pad.view?.replaced) paper();
    pad.view = null;
  }

  function stroke(from, to, time) {
    context.strokeStyle = pad.erasing ? "#ffffff" : pad.colour;
    context.lineWidth = pad.size * zoom;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(from.x * zoom, from.y * zoom);
    // A line without length is a dot.
    context.lineTo(to.x * zoom + (from.x === to.x && from.y === to.y ? 0.01 : 0), to.y * zoom);
    context.stroke();
    pad.empty = false;
    changed(time);
  }

  // A position of the pointer in pixels of the network.
  function place(event) {
    const box = canvas.getBoundingClientRect();
    return {x: (event.clientX - box.left) / box.width * image.width, y: (event.clientY - box.top) / box.height * image.height};
  }

  canvas.addEventListener("pointerdown", event => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    hideCursor();
    begin();
    at = place(event);
    stroke(at, at, event.timeStamp);
  });
  canvas.addEventListener("pointermove", event => {
    if (!at) return;
    // All points between two frames, so that fast strokes stay round.
    const events = event.getCoalescedEvents?.() ?? [];
    for (const part of events.length ? events : [event]) {
      const next = place(part);
      stroke(at, next, event.timeStamp);
      at = next;
    }
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { at = null; });

  const ring = canvas.parentElement.querySelector(".cursor");
  function showCursor() {
    cursor.shown = true;
    ring.hidden = false;
    ring.classList.toggle("down", cursor.down);
    ring.style.left = `${100 * cursor.x / image.width}%`;
    ring.style.top = `${100 * cursor.y / image.height}%`;
  }

  function hideCursor() {
    Object.assign(cursor, {shown: false, down: false});
    ring.hidden = true;
  }

  const steps = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  canvas.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in steps) {
      const from = {...cursor}, step = longest / 28 * (event.shiftKey ? 4 : 1);
      cursor.x = Math.min(Math.max(cursor.x + steps[event.key][0] * step, 0), image.width);
      cursor.y = Math.min(Math.max(cursor.y + steps[event.key][1] * step, 0), image.height);
      if (cursor.down) stroke(from, cursor, event.timeStamp);
    } else if (event.key === " " || event.key === "Enter") {
      cursor.down = !cursor.down;
      if (cursor.down) {
        begin();
        stroke(cursor, cursor, event.timeStamp);
      }
    } else if (event.key === "Escape") {
      hideCursor();
      return;
    } else {
      return;
    }
    event.preventDefault();
    showCursor();
  });
  canvas.addEventListener("blur", hideCursor);

  Object.assign(pad, {
    /**
     * Shows a video or a bitmap as large as fits, or its centre without a margin; what is drawn next is on it.
     *
     * @param view what the page shows with it, which undo gives back.
     * @param margin colour around it.
     */
    show(source, width, height, view, {isCropped = false, margin = "#ffffff"} = {}) {
      keep();
      paper(margin);
      const scale = Math[isCropped ? "max" : "min"](canvas.width / width, canvas.height / height);
      context.imageSmoothingEnabled = scale < 1;
      context.imageSmoothingQuality = "high";
      const across = width * scale, down = height * scale;
      context.drawImage(source, (canvas.width - across) / 2, (canvas.height - down) / 2, across, down);
      Object.assign(pad, {empty: false, view});
    },
    clear(time) {
      keep();
      paper();
      Object.assign(pad, {empty: true, view: null});
      changed(time);
    },
    /** Takes the last change back, if there was one. */
    undo(time) {
      if (!past.length) return;
      pad.restore(past.pop());
      changed(time);
    },
    snapshot: () => ({pixels: context.getImageData(0, 0, canvas.width, canvas.height), empty: pad.empty, view: pad.view}),
    restore({pixels, empty, view}) {
      context.putImageData(pixels, 0, 0);
      Object.assign(pad, {empty, view});
    },
    /** Returns the picture as of pixels.js. */
    picture() {
      const {data, width, height} = context.getImageData(0, 0, canvas.width, canvas.height);
      return {data: withoutAlpha(data), width, height, channels: 3};
    },
  });
  paper();
  return pad;
}

/** Returns RGBA pixels without their fourth part. */
export function withoutAlpha(data) {
  const result = new Uint8Array(data.length / 4 * 3);
  for (let i = 0, j = 0; i < data.length; i += 4, j += 3) {
    result[j] = data[i];
    result[j + 1] = data[i + 1];
    result[j + 2] = data[i + 2];
  }
  return result;
}
