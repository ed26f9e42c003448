// The interactive parts of a page: color scheme, sortable and filtered tables, 3D skeletons, motion and search. Pages are readable without them.
"use strict";
{
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // color scheme: the one of the system, unless the reader has chosen the other
  const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)");
  const shown = () => root.dataset.theme || (system.matches ? "dark" : "light");
  const other = () => (shown() === "dark" ? "light" : "dark");
  const label = () => all("button.theme").forEach((button) => { button.textContent = `◐ ${other()}`; });
  const choose = () => {
    const chosen = other();
    root.dataset.theme = chosen === (system.matches ? "dark" : "light") ? "" : chosen;
    try {
      localStorage.setItem("posebook-theme", root.dataset.theme);
    } catch { } // without storage, the choice applies to this page only
    label();
  };
  all("button.theme").forEach((button) => button.addEventListener("click", choose));
  system.addEventListener("change", label);
  label();

  // tables are sorted by a click on a header: ascending, descending, original order
  const BLANK = /^([–—-]|nan|none|not (measured|stated|printed))?$/i;
  const NUMBER = /^[~≈<>≤≥±]?\s*([−+-]?)(\d[\d,\u2009\u202f]*(?:\.\d+)?(?:e[−+-]?\d+)?)(?:\s*(k|M|G|µs|ms|s|min|h|%)?)(?=$|[\s±(])(?!\s*[×x:/–-]\s*\d)/;
  const SCALE = { k: 1e3, M: 1e6, G: 1e9, "µs": 1e-6, ms: 1e-3, min: 60, h: 3600 };
  const textOf = (cell) => {
    const copy = cell.cloneNode(true);
    all("sup", copy).forEach((footnote) => footnote.remove());
    return copy.textContent.replace(/\s+/g, " ").trim();
  };
  const numberOf = (text) => {
    const [, sign, digits, unit] = text.match(NUMBER) ?? [];
    if (!digits) return NaN;
    const plain = `${sign}${digits}`.replaceAll("−", "-").replace(/[,\u2009\u202f]/g, "");
    return Number(plain) * (SCALE[unit] ?? 1);
  };
  const natural = new Intl.Collator("en", { numeric: true }).compare;

  function sort(blocks, column, direction) {
    const key = (block) => block.map((row) => textOf(row.cells[column])).find((text) => !BLANK.test(text));
    const keyed = blocks.map((block) => [key(block), block]);
    const filled = keyed.filter(([text]) => text !== undefined), blank = keyed.filter(([text]) => text === undefined);
    const numeric = filled.every(([text]) => !Number.isNaN(numberOf(text)));
    filled.sort(([a], [b]) => direction * (numeric ? numberOf(a) - numberOf(b) : natural(a, b)));
    return [...filled, ...blank].map(([, block]) => block);
  }

  function sortable(table) {
    const body = table.tBodies[0], rows = [...(body?.rows ?? [])], heads = [...(table.tHead?.rows ?? [])];
    const columns = new Set([...heads, ...rows].map((row) => row.cells.length));
    if (!heads.length || rows.length < 3 || columns.size > 1 || table.querySelector("[rowspan], [colspan]")) return;
    // a row without a name belongs to the row above and moves with it
    const blocks = [];
    for (const row of rows) {
      if (blocks.length && !textOf(row.cells[0])) blocks.at(-1).push(row);
      else blocks.push([row]);
    }
    // with several rows of headers, the lowest one with a text names the column
    const named = (column) => heads.map((row) => row.cells[column]).findLast(textOf);
    const headers = [...heads[0].cells].map((cell, column) => named(column) ?? cell);
    headers.forEach((header, column) => {
      const button = Object.assign(document.createElement("button"), { type: "button" });
      if (textOf(header)) button.append(...header.childNodes);
      else button.ariaLabel = "name";
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

  // tables in div.filter: a field shows only the rows that contain all words
  all("main .filter").forEach((box) => {
    const rows = [...box.querySelector("tbody").rows], line = document.createElement("p"), count = document.createElement("span");
    const words = Object.assign(document.createElement("input"), { type: "search", placeholder: "filter rows", ariaLabel: "filter rows" });
    const filter = () => {
      const terms = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      rows.forEach((row) => { row.hidden = !terms.every((word) => row.textContent.toLowerCase().includes(word)); });
      count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
    };
    count.role = "status";
    words.addEventListener("input", filter);
    filter();
    line.append(words, count);
    box.prepend(line);
  });

  // 3D skeletons: plotly.js, a file beside the pages, is loaded when the first skeleton comes into view;
  // the static image remains if the file is missing or the browser has no WebGL
  const ROLES = { left: "--warm", right: "--blue", middle: "--accent", words: "--ink", floor: "--muted" };
  let library;
  const loadLibrary = (source) => (library ??= new Promise((resolve, reject) => {
    const script = Object.assign(document.createElement("script"), { src: source, onload: resolve, onerror: reject });
    document.head.append(script);
  }));
  const colorOf = (name) => { // the value of a CSS color variable in the current color scheme
    const probe = document.body.appendChild(document.createElement("i"));
    probe.style.color = `var(${name})`;
    const { color } = getComputedStyle(probe);
    probe.remove();
    return color;
  };

  function updateColors(plot) {
    plot.data.forEach((trace, i) => {
      const color = colorOf(ROLES[trace.meta]);
      Plotly.restyle(plot, { "line.color": color, "marker.color": color, "textfont.color": color }, [i]);
    });
    Plotly.relayout(plot, { "font.color": colorOf("--muted") });
  }

  async function makeInteractive(figure) {
    if (!document.createElement("canvas").getContext("webgl")) return;
    await loadLibrary(figure.dataset.library);
    const { data, layout, frames } = JSON.parse(figure.querySelector("script").textContent);
    const still = figure.querySelector("img"), live = document.createElement("div"), plot = document.createElement("div");
    live.className = "live";
    plot.tabIndex = 0;
    plot.role = "group";
    plot.ariaLabel = `${still.alt}. Use the arrow keys to rotate.`;
    live.append(plot);
    figure.append(live);
    await Plotly.newPlot(plot, data, layout, { displayModeBar: false, responsive: true, scrollZoom: false });
    figure.classList.add("lives");
    updateColors(plot);
    new MutationObserver(() => updateColors(plot)).observe(root, { attributeFilter: ["data-theme"] });
    system.addEventListener("change", () => updateColors(plot));
    plot.addEventListener("keydown", (event) => {
      const [right, up] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key] ?? [];
      if (right === undefined) return;
      event.preventDefault();
      const { x, y, z } = plot.layout.scene.camera.eye, distance = Math.hypot(x, y, z);
      const azimuth = Math.atan2(y, x) + right * 0.2;
      const elevation = Math.max(-1.4, Math.min(1.4, Math.asin(z / distance) + up * 0.15)); // never over the poles
      const radius = distance * Math.cos(elevation);
      const eye = { x: radius * Math.cos(azimuth), y: radius * Math.sin(azimuth), z: distance * Math.sin(elevation) };
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

  const observer = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach(({ target }) => {
    observer.unobserve(target);
    makeInteractive(target).catch(() => target.querySelector(".live")?.remove());
  }), { rootMargin: "200px" });
  all("figure.scene[data-library]").forEach((figure) => observer.observe(figure));

  // drawings that move without end: a button pauses them; they wait for it if the reader prefers less motion
  all("figure.loop").forEach((figure) => {
    const drawing = figure.querySelector("svg"), button = document.createElement("button");
    const label = () => { button.textContent = drawing.animationsPaused() ? "play" : "pause"; };
    button.type = "button";
    button.addEventListener("click", () => {
      if (drawing.animationsPaused()) drawing.unpauseAnimations();
      else drawing.pauseAnimations();
      label();
    });
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) drawing.pauseAnimations();
    label();
    figure.append(button);
  });

  // search: a passage must contain every word; matches in titles and headings have a higher weight
  const dialog = document.querySelector("dialog.search"), list = dialog.querySelector("ol");
  const field = dialog.querySelector("input"), status = dialog.querySelector("[role=status]");
  const countMatches = (text, terms) => terms.filter((word) => text.toLowerCase().includes(word)).length;

  function excerpt(text, terms) {
    const first = Math.min(...terms.map((word) => text.toLowerCase().indexOf(word)).filter((index) => index >= 0), text.length);
    const start = first < 60 || first === text.length ? 0 : text.indexOf(" ", first - 50) + 1;
    const shown = text.slice(start, start + 150);
    const parts = shown.split(new RegExp(`(${terms.map((word) => word.replace(/\W/g, "\\$&")).join("|")})`, "i"));
    const marked = parts.map((part, i) => (i % 2 ? Object.assign(document.createElement("mark"), { textContent: part }) : part));
    return [start ? "… " : "", ...marked, start + 150 < text.length ? " …" : ""];
  }

  function entry({ page, heading, href, text }, terms) {
    const link = document.createElement("a"), name = document.createElement("b"), line = document.createElement("span");
    link.href = dialog.dataset.index.replace("search.js", "") + href;
    name.textContent = page === heading ? page : `${page} › ${heading}`;
    line.append(...excerpt(text, terms));
    link.append(name, line);
    const item = document.createElement("li");
    item.append(link);
    return item;
  }

  function search() {
    const terms = field.value.toLowerCase().split(/\s+/).filter(Boolean), passages = window.posebookPassages;
    list.replaceChildren();
    status.textContent = "";
    if (!terms.length || !passages) return;
    const found = passages
      .filter(({ page, heading, text }) => countMatches(`${page} ${heading} ${text}`, terms) === terms.length)
      .map((one) => [4 * countMatches(one.heading, terms) + 2 * countMatches(one.page, terms) + countMatches(one.text, terms), one])
      .sort(([a], [b]) => b - a);
    status.textContent = found.length ? `${found.length} passage${found.length > 1 ? "s" : ""}` : "nothing found";
    list.append(...found.slice(0, 30).map(([, one]) => entry(one, terms)));
  }

  function open() {
    dialog.showModal();
    field.select();
    if (window.posebookPassages) return;
    const script = document.createElement("script");
    script.src = dialog.dataset.index;
    script.onload = search;
    script.onerror = () => { status.textContent = "The search needs the file search.js beside the pages."; };
    document.head.append(script);
  }

  function step(by) {
    const targets = [field, ...all("a", list)], current = targets.indexOf(document.activeElement);
    targets[Math.max(0, Math.min(targets.length - 1, current + by))].focus();
  }
  field.addEventListener("input", search);
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by) step(by);
    else if (event.key === "Enter" && event.target === field) list.querySelector("a")?.click();
    else if (event.key === "Escape") dialog.close(); // immediately, because some browsers only clear the field at first
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
