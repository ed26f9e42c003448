// What a page does beyond standing there: light or dark, tables that sort, skeletons to turn, a search. Without it only these
// are missing.
"use strict";
{
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // light or dark: the system's, unless this reader has chosen the other
  const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)");
  const shown = () => root.dataset.theme || (system.matches ? "dark" : "light");
  const other = () => (shown() === "dark" ? "light" : "dark");
  const label = () => all("button.theme").forEach((button) => { button.textContent = `◐ ${other()}`; });
  const choose = () => {
    const chosen = other();
    root.dataset.theme = chosen === (system.matches ? "dark" : "light") ? "" : chosen;
    try {
      localStorage.setItem("posebook-theme", root.dataset.theme);
    } catch { } // kept for this page only
    label();
  };
  all("button.theme").forEach((button) => button.addEventListener("click", choose));
  system.addEventListener("change", label);
  label();

  // tables that sort by a click on a header: up, down, as they were
  const BLANK = /^([–—-]|nan|none|not (measured|stated|printed))?$/i;
  const FIGURE = /^[~≈<>≤≥±]?\s*([−+-]?)(\d[\d,\u2009\u202f]*(?:\.\d+)?(?:e[−+-]?\d+)?)(?:\s*(k|M|G|µs|ms|s|min|h|%)?)(?=$|[\s±(])(?!\s*[×x:/–-]\s*\d)/;
  const SCALE = { k: 1e3, M: 1e6, G: 1e9, "µs": 1e-6, ms: 1e-3, min: 60, h: 3600 };
  const words = (cell) => {
    const copy = cell.cloneNode(true);
    all("sup", copy).forEach((footnote) => footnote.remove());
    return copy.textContent.replace(/\s+/g, " ").trim();
  };
  const figure = (text) => {
    const [, sign, digits, unit] = text.match(FIGURE) ?? [];
    if (!digits) return NaN;
    const plain = `${sign}${digits}`.replaceAll("−", "-").replace(/[,\u2009\u202f]/g, "");
    return Number(plain) * (SCALE[unit] ?? 1);
  };
  const natural = new Intl.Collator("en", { numeric: true }).compare;

  function sort(blocks, column, direction) {
    const key = (block) => block.map((row) => words(row.cells[column])).find((text) => !BLANK.test(text));
    const keyed = blocks.map((block) => [key(block), block]);
    const filled = keyed.filter(([text]) => text !== undefined), blank = keyed.filter(([text]) => text === undefined);
    const numeric = filled.every(([text]) => !Number.isNaN(figure(text)));
    filled.sort(([a], [b]) => direction * (numeric ? figure(a) - figure(b) : natural(a, b)));
    return [...filled, ...blank].map(([, block]) => block);
  }

  function sortable(table) {
    const body = table.tBodies[0], rows = [...(body?.rows ?? [])], heads = [...(table.tHead?.rows ?? [])];
    const columns = new Set([...heads, ...rows].map((row) => row.cells.length));
    if (!heads.length || rows.length < 3 || columns.size > 1 || table.querySelector("[rowspan], [colspan]")) return;
    // a line without a name belongs to the one above it, and moves with it
    const blocks = [];
    for (const row of rows) {
      if (blocks.length && !words(row.cells[0])) blocks.at(-1).push(row);
      else blocks.push([row]);
    }
    // of several lines of headers, a column's lowest that says something
    const named = (column) => heads.map((row) => row.cells[column]).findLast(words);
    const headers = [...heads[0].cells].map((cell, column) => named(column) ?? cell);
    headers.forEach((header, column) => {
      const button = Object.assign(document.createElement("button"), { type: "button" });
      if (words(header)) button.append(...header.childNodes);
      else button.ariaLabel = header.ariaLabel;
      header.replaceChildren(button);
      button.addEventListener("click", () => {
        const was = header.ariaSort, next = !was ? "ascending" : was === "ascending" ? "descending" : null;
        headers.forEach((one) => { one.ariaSort = null; });
        header.ariaSort = next;
        body.append(...(next ? sort(blocks, column, next === "ascending" ? 1 : -1) : blocks).flat());
      });
    });
  }
  all("main .outputs table").forEach(sortable);

  // skeletons in space: plotly's script, which lies beside the pages, is fetched when the first of them comes into view;
  // where it is missing, or the browser draws nothing in space, the still picture stays
  const ROLES = { left: "--warm", right: "--blue", middle: "--accent", words: "--ink", floor: "--muted" };
  let library;
  const fetched = (source) => (library ??= new Promise((resolve, reject) => {
    const script = Object.assign(document.createElement("script"), { src: source, onload: resolve, onerror: reject });
    document.head.append(script);
  }));
  const resolved = (name) => { // what a color of the style is under the light of now
    const probe = document.body.appendChild(document.createElement("i"));
    probe.style.color = `var(${name})`;
    const { color } = getComputedStyle(probe);
    probe.remove();
    return color;
  };

  function tinted(plot) {
    plot.data.forEach((trace, i) => {
      const color = resolved(ROLES[trace.meta]);
      Plotly.restyle(plot, { "line.color": color, "marker.color": color, "textfont.color": color }, [i]);
    });
    Plotly.relayout(plot, { "font.color": resolved("--muted") });
  }

  async function enliven(figure) {
    if (!document.createElement("canvas").getContext("webgl")) return;
    await fetched(figure.dataset.library);
    const { data, layout, frames } = JSON.parse(figure.querySelector("script").textContent);
    const still = figure.querySelector("img"), live = document.createElement("div"), plot = document.createElement("div");
    live.className = "live";
    plot.tabIndex = 0;
    plot.role = "group";
    plot.ariaLabel = `${still.alt}. Arrow keys turn it.`;
    live.append(plot);
    figure.append(live);
    await Plotly.newPlot(plot, data, layout, { displayModeBar: false, responsive: true, scrollZoom: false });
    figure.classList.add("lives");
    tinted(plot);
    new MutationObserver(() => tinted(plot)).observe(root, { attributeFilter: ["data-theme"] });
    system.addEventListener("change", () => tinted(plot));
    plot.addEventListener("keydown", (event) => {
      const [across, up] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key] ?? [];
      if (across === undefined) return;
      event.preventDefault();
      const { x, y, z } = plot.layout.scene.camera.eye, far = Math.hypot(x, y, z);
      const round = Math.atan2(y, x) + across * 0.2, high = Math.max(-1.4, Math.min(1.4, Math.asin(z / far) + up * 0.15));
      const eye = { x: far * Math.cos(high) * Math.cos(round), y: far * Math.cos(high) * Math.sin(round), z: far * Math.sin(high) };
      Plotly.relayout(plot, { "scene.camera.eye": eye });
    });
    if (frames?.length > 1) live.append(controls(plot, frames, layout.meta.pace));
  }

  function controls(plot, frames, pace) {
    const line = document.createElement("p"), button = document.createElement("button"), time = document.createElement("output");
    const slider = Object.assign(document.createElement("input"), { type: "range", min: 0, max: frames.length - 1, value: 0, ariaLabel: "time" });
    let playing = null;
    const show = () => {
      time.textContent = slider.ariaValueText = `${frames[slider.value].name} s`;
      const { data, traces } = frames[slider.value];
      return Plotly.animate(plot, { data, traces }, { mode: "immediate", transition: { duration: 0 }, frame: { duration: 0, redraw: true } });
    };
    const stop = () => {
      clearInterval(playing);
      playing = null;
      button.textContent = "play";
    };
    button.type = "button";
    button.addEventListener("click", () => {
      if (playing !== null) return stop();
      button.textContent = "stop";
      playing = setInterval(() => {
        slider.value = (Number(slider.value) + 1) % frames.length;
        show();
      }, pace);
    });
    slider.addEventListener("input", () => { stop(); show(); });
    stop();
    time.textContent = `${frames[0].name} s`;
    line.append(button, slider, time);
    return line;
  }

  const seen = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach(({ target }) => {
    seen.unobserve(target);
    enliven(target).catch(() => target.querySelector(".live")?.remove());
  }), { rootMargin: "200px" });
  all("figure.scene[data-library]").forEach((figure) => seen.observe(figure));

  // search: every word must occur in a passage; titles and headings weigh more than prose
  const dialog = document.querySelector("dialog.search"), list = dialog.querySelector("ol");
  const field = dialog.querySelector("input"), status = dialog.querySelector("[role=status]");
  const within = (text, asked) => asked.filter((word) => text.toLowerCase().includes(word)).length;

  function phrase(text, asked) {
    const at = Math.min(...asked.map((word) => text.toLowerCase().indexOf(word)).filter((place) => place >= 0), text.length);
    const start = at < 60 || at === text.length ? 0 : text.indexOf(" ", at - 50) + 1;
    const piece = text.slice(start, start + 150);
    const parts = piece.split(new RegExp(`(${asked.map((word) => word.replace(/\W/g, "\\$&")).join("|")})`, "i"));
    const marked = parts.map((part, i) => (i % 2 ? Object.assign(document.createElement("mark"), { textContent: part }) : part));
    return [start ? "… " : "", ...marked, start + 150 < text.length ? " …" : ""];
  }

  function entry({ page, heading, href, text }, asked) {
    const link = document.createElement("a"), name = document.createElement("b"), line = document.createElement("span");
    link.href = dialog.dataset.index.replace("search.js", "") + href;
    name.textContent = page === heading ? page : `${page} › ${heading}`;
    line.append(...phrase(text, asked));
    link.append(name, line);
    const item = document.createElement("li");
    item.append(link);
    return item;
  }

  function search() {
    const asked = field.value.toLowerCase().split(/\s+/).filter(Boolean), passages = window.posebookPassages;
    list.replaceChildren();
    status.textContent = "";
    if (!asked.length || !passages) return;
    const found = passages
      .filter(({ page, heading, text }) => within(`${page} ${heading} ${text}`, asked) === asked.length)
      .map((one) => [4 * within(one.heading, asked) + 2 * within(one.page, asked) + within(one.text, asked), one])
      .sort(([a], [b]) => b - a);
    status.textContent = found.length ? `${found.length} passage${found.length > 1 ? "s" : ""}` : "nothing found";
    list.append(...found.slice(0, 30).map(([, one]) => entry(one, asked)));
  }

  function open() {
    dialog.showModal();
    field.select();
    if (window.posebookPassages) return;
    const script = document.createElement("script");
    script.src = dialog.dataset.index;
    script.onload = search;
    script.onerror = () => { status.textContent = "The search needs search.js, which is not beside this page."; };
    document.head.append(script);
  }

  function step(by) {
    const places = [field, ...all("a", list)], here = places.indexOf(document.activeElement);
    places[Math.max(0, Math.min(places.length - 1, here + by))].focus();
  }
  field.addEventListener("input", search);
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by) step(by);
    else if (event.key === "Enter" && event.target === field) list.querySelector("a")?.click();
    else if (event.key === "Escape") dialog.close(); // at once, where a browser would first empty the field
    else return;
    event.preventDefault();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.closest("a")) dialog.close();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || dialog.open || event.target.matches("input, textarea")) return;
    event.preventDefault();
    open();
  });
  all("button.find").forEach((button) => button.addEventListener("click", open));
  all(".tools").forEach((tools) => { tools.hidden = false; });
}
