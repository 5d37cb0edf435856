// The review of suspects: decisions by key or button, kept in the browser, downloaded as a CSV.
"use strict";
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const get = id => document.getElementById(id);
  const percent = share => share < .001 ? "below 0.1\u00a0%" : `${(100 * share).toFixed(1)}\u00a0%`;
  const formatInteger = number => number.toLocaleString("en");
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const {suspects, size: [height, width], columns} = page;
  const COLOURS = {keep: "green", change: "blue", drop: "vermillion"};
  const WORDS = {keep: "kept", drop: "dropped"};
  const byIndex = new Map(suspects.map((suspect, i) => [suspect.index, i]));

  // All decisions in their order, [index, action, class]; the last one of an image counts.
  let log = load(), position = 0, galleryColumns = 1;
  function load() {
    try {
      const saved = JSON.parse(localStorage.getItem(page.key)) ?? [];
      return saved.filter(([index, action, name]) => byIndex.has(index) && action in COLOURS
        && (action === "change" ? page.classes.includes(name) : name === ""));
    } catch {
      return [];
    }
  }
  function save() {
    try {
      localStorage.setItem(page.key, JSON.stringify(log));
    } catch {
      get("decided").append(" This browser keeps nothing: download before you leave.");
    }
  }
  const decisions = () => new Map(log.map(([index, action, name]) => [index, {action, name}]));

  const quoted = text => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  function csv() {
    const decided = decisions(), rows = suspects.filter(({index}) => decided.has(index)).map(({index, label}) => {
      const {action, name} = decided.get(index);
      return [index, quoted(label), action, quoted(name)].join(",") + "\n";
    });
    return page.head + rows.join("");
  }

  const sheet = new Image();
  const THUMB = Math.min(Math.max(28, width, height), 56) + 4, longest = Math.max(width, height);
  function paint(context, i, x, y, across, down) {
    context.drawImage(sheet, i % columns * width, Math.floor(i / columns) * height, width, height, x, y, across, down);
  }
  function drawGallery(decided) {
    const canvas = get("gallery"), ratio = devicePixelRatio;
    galleryColumns = Math.max(1, Math.floor((get("gallery-box").clientWidth - 8) / THUMB));
    const down = Math.max(1, Math.ceil(suspects.length / galleryColumns)) * THUMB, across = galleryColumns * THUMB;
    Object.assign(canvas, {width: across * ratio, height: down * ratio});
    Object.assign(canvas.style, {width: `${across}px`, height: `${down}px`});
    const context = canvas.getContext("2d"), [w, h] = [width, height].map(side => side / longest * (THUMB - 4));
    context.scale(ratio, ratio);
    suspects.forEach(({index}, i) => {
      const x = i % galleryColumns * THUMB, y = Math.floor(i / galleryColumns) * THUMB;
      paint(context, i, x + (THUMB - w) / 2, y + (THUMB - h) / 2, w, h);
      if (decided.has(index)) {
        context.fillStyle = colour(COLOURS[decided.get(index).action]);
        context.fillRect(x + 2, y + THUMB - 7, THUMB - 4, 5);
      }
      if (i === position) {
        context.strokeStyle = colour("ink");
        context.lineWidth = 3;
        context.strokeRect(x + 1.5, y + 1.5, THUMB - 3, THUMB - 3);
      }
    });
  }

  function show() {
    const decided = decisions(), gallery = get("gallery"), suspect = suspects[position];
    const done = `${formatInteger(decided.size)} of ${formatInteger(suspects.length)} decided`;
    get("decided").textContent = done;
    Object.assign(get("progress"), {value: decided.size, max: Math.max(suspects.length, 1)});
    get("undo").disabled = get("clear").disabled = !log.length;
    for (const id of ["keep", "change", "class", "drop", "previous", "next", "open"]) get(id).disabled = !suspect;
    get("open").disabled = decided.size === suspects.length;
    drawGallery(decided);
    if (!suspect) {
      get("about").textContent = "No label is suspect.";
      return;
    }
    const {index, split, label, suggestion} = suspect, decision = decided.get(index);
    const about = `${formatInteger(position + 1)} of ${formatInteger(suspects.length)}: ${split} image ${index}`;
    const words = decision ? WORDS[decision.action] ?? `changed to ${decision.name}` : "none yet";
    get("about").textContent = about;
    get("label").textContent = label;
    get("label-probability").textContent = percent(suspect.label_probability);
    get("suggestion").textContent = suggestion;
    get("confidence").textContent = percent(suspect.confidence);
    get("decision").textContent = words;
    get("decision").className = `text ${decision?.action ?? ""}`;
    get("class").value = decision?.name || suggestion;
    gallery.setAttribute("aria-valuemin", 1);
    gallery.setAttribute("aria-valuemax", suspects.length);
    gallery.setAttribute("aria-valuenow", position + 1);
    gallery.setAttribute("aria-valuetext", `${about}, label ${label}, suggestion ${suggestion}, decision: ${words}`);
    const canvas = get("image");
    Object.assign(canvas, {width, height});
    paint(canvas.getContext("2d"), position, 0, 0, width, height);
    const box = get("gallery-box"), top = Math.floor(position / galleryColumns) * THUMB;
    if (top < box.scrollTop) box.scrollTop = top;
    if (top + THUMB > box.scrollTop + box.clientHeight) box.scrollTop = top + THUMB - box.clientHeight + 8;
  }

  function move(to) {
    position = Math.min(Math.max(to, 0), Math.max(suspects.length - 1, 0));
    show();
  }
  function decide(action) {
    if (!suspects.length) return;
    log.push([suspects[position].index, action, action === "change" ? get("class").value : ""]);
    move(position + 1);
    save();
  }
  function undo() {
    if (!log.length) return;
    const [index] = log.pop();
    move(byIndex.get(index));
    save();
  }
  function nextUndecided() {
    const decided = decisions(), all = suspects.map((_, i) => (position + 1 + i) % suspects.length);
    move(all.find(i => !decided.has(suspects[i].index)) ?? position);
  }
  function clear() {
    if (!confirm(`Discard all ${formatInteger(decisions().size)} decisions?`)) return;
    log = [];
    move(0);
    save();
  }
  function download() {
    const link = document.createElement("a"), url = URL.createObjectURL(new Blob([csv()], {type: "text/csv"}));
    Object.assign(link, {href: url, download: "labels.csv"});
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  const actions = {
    keep: () => decide("keep"), change: () => decide("change"), drop: () => decide("drop"), undo, open: nextUndecided,
    previous: () => move(position - 1), next: () => move(position + 1), clear, download,
  };
  for (const [id, action] of Object.entries(actions)) get(id).addEventListener("click", action);
  const keys = {
    k: actions.keep, c: actions.change, d: actions.drop, u: undo, n: nextUndecided,
    ArrowLeft: actions.previous, ArrowRight: actions.next, Home: () => move(0), End: () => move(suspects.length - 1),
    ArrowUp: () => position >= galleryColumns && move(position - galleryColumns),
    ArrowDown: () => position + galleryColumns < suspects.length && move(position + galleryColumns),
  };
  // Where the focus is in the review, but not in the list of classes, which has keys of its own.
  get("review").addEventListener("keydown", event => {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (!(key in keys) || event.ctrlKey || event.altKey || event.metaKey || event.target === get("class")) return;
    event.preventDefault();
    keys[key]();
  });
  get("gallery").addEventListener("click", event => {
    const box = get("gallery").getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left) / THUMB), row = Math.floor((event.clientY - box.top) / THUMB);
    const clicked = row * galleryColumns + column;
    if (column < galleryColumns && clicked < suspects.length) move(clicked);
  });

  get("class").append(...page.classes.map(name => new Option(name, name)));
  if (suspects.length) sheet.src = page.src;
  const start = () => {
    nextUndecided();
    get("gallery").focus({preventScroll: true});
    get("review").dataset.ready = "true";
  };
  position = suspects.length - 1;
  (suspects.length ? sheet.decode() : Promise.resolve()).then(start);
  addEventListener("resize", show);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
})();
