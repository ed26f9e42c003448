// What a page does beyond standing there: light or dark, tables that sort, a search. Without it only these are missing.
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
