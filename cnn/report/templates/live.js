// Says how old the page is, and loads its next version while the run trains.
"use strict";
(() => {
  // Seconds: when the page was written, and from one writing to the next, about.
  const {state, written, wait} = page.live;
  const opened = Date.now();
  const seconds = since => Math.max(0, (Date.now() - since) / 1000);
  const words = s => s < 120 ? `${Math.floor(s)} s` : s < 7200 ? `${Math.floor(s / 60)} min` : `${Math.floor(s / 3600)} h`;

  function update() {
    const age = seconds(1000 * written), late = state === "training" && age > 60 + 4 * wait;
    get("age").textContent = `Written ${words(age)} ago.`;
    if (late) get("state").textContent = `Not rewritten for ${words(age)}: if the run was stopped, the same command resumes it.`;
    // A resumed run is shown, too. The browser keeps the position on the page.
    const period = late || state === "stopped" ? 30 : Math.min(Math.max(wait / 4, 2), 15);
    if (state !== "finished" && get("reload").checked && !document.hidden && seconds(opened) > period) location.reload();
  }

  get("reloads").hidden = state === "finished";
  update();
  setInterval(update, 500);
})();
