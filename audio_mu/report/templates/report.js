"use strict";
(() => {
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    if (!("value" in cell.dataset)) return cell.textContent.trim();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
    : String(a).localeCompare(String(b), "en", { numeric: true });

  for (const table of document.querySelectorAll("table.sortable")) {
    for (const button of table.querySelectorAll("thead button")) {
      button.addEventListener("click", () => {
        const heading = button.closest("th");
        const column = heading.cellIndex;
        const falling = heading.getAttribute("aria-sort") === "ascending";
        for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
        const body = table.tBodies[0];
        const rows = [...body.rows].sort((first, second) => {
          const a = valueOf(first, column), b = valueOf(second, column);
          if (a === null || b === null) return (a === null) - (b === null); // what is missing stays last
          return falling ? compare(b, a) : compare(a, b);
        });
        body.append(...rows);
      });
    }
  }

  const select = document.getElementById("method");
  if (select) {
    const show = () => {
      for (const row of document.querySelectorAll("#remembered tbody tr")) row.hidden = row.dataset.method !== select.value;
    };
    select.addEventListener("change", show);
    show(); // a reloaded page keeps the choice made before
  }

  const clips = JSON.parse(document.getElementById("audio").textContent);
  const player = new Audio();
  let pressed = null;
  const stop = () => {
    if (pressed) { pressed.setAttribute("aria-pressed", "false"); pressed.textContent = "Play"; }
    pressed = null;
  };
  player.addEventListener("ended", stop);
  for (const button of document.querySelectorAll(".play")) {
    button.addEventListener("click", async () => {
      const again = pressed === button;
      player.pause();
      stop();
      if (again) return;
      player.src = clips[button.dataset.clip];
      pressed = button;
      button.setAttribute("aria-pressed", "true");
      button.textContent = "Stop";
      try { await player.play(); } catch (error) { if (error.name !== "AbortError") { stop(); throw error; } }
    });
  }

  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
})();
