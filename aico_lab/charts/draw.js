// Draws charts in the width of their column. Bundled with Vega, after `const CONFIG = …;`.

const NARROW = 520; // below this width, what stands side by side stands one below the other
const FULL = 500; // a chart of at least this natural width fills its column
const TWO_LINES = 34; // a row of at least this height has labels of two lines
const PAPER = 760; // wider charts have letters too small to read when they are printed on A4
const ROWS = 500; // the most rows of a table; a CSV file has all

const ruler = document.createElement("canvas").getContext("2d");
const widthOf = (text, font = "12px") => {
  ruler.font = `${font} ${CONFIG.font}`;
  return ruler.measureText(text).width;
};

// Cut a text to a width, between characters as people see them: Vega cuts emoji in two.
const graphemes = new Intl.Segmenter(undefined, { granularity: "grapheme" });
const cut = (text, room) => {
  if (widthOf(text) <= room) return text;
  let kept = "";
  for (const { segment } of graphemes.segment(text)) {
    if (widthOf(`${kept}${segment}…`) > room) break;
    kept += segment;
  }
  return `${kept.trimEnd()}…`;
};

// Break a text into lines that fit, at spaces.
const wrap = (text, room, font) => {
  const lines = [];
  for (const word of String(text).split(" ")) {
    const longer = lines.length ? `${lines.at(-1)} ${word}` : word;
    if (lines.length && widthOf(longer, font) <= room) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
};

// What specifications can call in their expressions.
const expressionFunctions = {
  aicoLabWrap: (text, room) => {
    const lines = wrap(text, room - 2);
    const two = lines.length > 2 ? [lines[0], lines.slice(1).join(" ")] : lines;
    return two.map((line) => cut(line, room - 2));
  },
  aicoLabCut: (text, room) => cut(String(text), room),
};

const PARTS = ["layer", "hconcat", "vconcat", "concat"];
const visit = (view, see) => {
  see(view);
  for (const part of PARTS) for (const child of view[part] ?? []) visit(child, see);
  if (view.spec) visit(view.spec, see);
};

const isDiscrete = (channel) => ["nominal", "ordinal"].includes(channel?.type);
const isComposite = (spec) =>
  ["hconcat", "vconcat", "concat", "facet", "repeat"].some((part) => part in spec) ||
  ["row", "column", "facet"].some((channel) => channel in (spec.encoding ?? {}));

// Return the height of a row of a discrete y axis, in pixels.
const rowHeight = (spec, field) => {
  const rows = Object.values(spec.datasets ?? {}).flat();
  const values = new Set(rows.map((row) => row[field]).filter((value) => value !== undefined));
  let height = CONFIG.view.discreteHeight.step * Math.max(1, values.size);
  visit(spec, (view) => {
    if (typeof view.height === "number") height = view.height;
  });
  return height / Math.max(1, values.size);
};

// Copy a specification, and fit its titles, labels and legends to a width.
const adapted = (spec, width) => {
  const { datasets, ...rest } = spec;
  const own = structuredClone(rest);
  if (datasets) own.datasets = datasets;
  const room = Math.max(70, Math.min(180, width * 0.34)); // beyond 200, Vega puts the title over them
  visit(own, (view) => {
    const { y, color, stroke } = view.encoding ?? {};
    for (const channel of [color, stroke]) {
      const names = channel?.scale?.domain;
      if (!Array.isArray(names) || channel.legend === null || channel.legend?.columns) continue;
      const long = Math.max(...names.map((name) => widthOf(name))) + 32;
      const columns = Math.max(1, Math.floor((width - 40) / long));
      channel.legend = { columns, ...channel.legend };
      if (width < 700 && !channel.legend.labelExpr) {
        const limit = width / columns - 32;
        channel.legend = { labelExpr: `aicoLabCut(datum.label, ${limit})`, labelLimit: limit + 2, ...channel.legend };
      }
    }
    const { x, facet, row, column } = view.encoding ?? {};
    if (isDiscrete(x) && x.axis !== null && !x.axis?.labelExpr)
      x.axis = { labelExpr: `aicoLabCut(datum.label, ${(x.axis?.labelLimit ?? 180) - 4})`, ...x.axis };
    if (isDiscrete(x) && x.axis?.labelOverlap === false && width < NARROW) x.axis.labelFontSize = 9;
    // So that each of up to eight months, or weeks, has its label on a phone.
    if (x?.type === "temporal" && x.axis && width < NARROW)
      x.axis = { labelFontSize: 10, labelSeparation: 2, ...x.axis };
    for (const channel of [facet, row, column])
      if (channel?.field && channel.header !== null && !channel.header?.labelExpr)
        channel.header = { labelExpr: `aicoLabCut(datum.label, ${width - 8})`, ...channel.header };
    if (isDiscrete(y) && y.axis !== null && !y.axis?.labelExpr)
      y.axis = {
        labelExpr: `aicoLab${rowHeight(spec, y.field) < TWO_LINES ? "Cut" : "Wrap"}(datum.label, ${room - 2})`,
        labelLimit: room, ...y.axis,
      };
    if (width < NARROW && color?.legend?.orient) color.legend.orient = "top";
    if (width < NARROW && view.hconcat) {
      view.vconcat = view.hconcat;
      delete view.hconcat;
    }
    if (width < NARROW && (view.concat || view.facet || view.repeat)) view.columns = 1;
    if (width < NARROW && view.encoding?.facet) view.encoding.facet.columns = 1;
    for (const child of view.layer ?? []) delete child.width;
  });
  return own;
};

const configFor = (width) => {
  const columns = width < 400 ? 2 : width < 700 ? 3 : 6;
  return {
    ...CONFIG,
    aria: false,
    legend: {
      ...CONFIG.legend,
      columns,
      labelLimit: width < 700 ? width / columns - 30 : 0,
      gradientLength: Math.min(200, width / 2),
      layout: { top: { anchor: "start", direction: width < 700 ? "vertical" : "horizontal" } },
    },
    header: { ...CONFIG.header, labelLimit: width },
  };
};

// Break titles of axes that are longer than their plot is wide or high. A specification of Vega is
// changed, since Vega-Lite writes the titles of its own into tooltips.
const wrapTitles = (compiled, room) => {
  for (const axis of compiled.axes ?? []) {
    const most = ["left", "right"].includes(axis.orient) ? room.height : room.width;
    if (typeof axis.title === "string" && widthOf(axis.title) > most)
      axis.title = wrap(axis.title, most);
  }
  for (const mark of compiled.marks ?? []) wrapTitles(mark, room);
  return compiled;
};

// Return the width and height of the smallest plot.
const roomOf = (spec, width) => {
  const room = { width: isComposite(spec) ? Infinity : width * 0.72, height: Infinity };
  visit(spec, (view) => {
    if (view.encoding?.y?.axis?.labelLimit)
      room.width = Math.min(room.width, width - view.encoding.y.axis.labelLimit - 24);
    for (const side of ["width", "height"])
      if (typeof view[side] === "number" && (side === "height" || isComposite(spec)))
        room[side] = Math.min(room[side], view[side]);
  });
  return { width: Math.max(room.width, 90), height: Math.max(room.height, 90) };
};

const embed = (target, spec, width, background = "transparent") =>
  vegaEmbed(target, spec, {
    mode: "vega-lite", renderer: "svg", actions: false, expressionFunctions,
    config: { ...configFor(width), background },
    patch: (compiled) => wrapTitles(compiled, roomOf(spec, width)),
  });

const measured = async (spec, width) => {
  const target = document.createElement("div");
  const drawn = await embed(target, spec, width);
  drawn.finalize();
  return Number(target.querySelector("svg").getAttribute("width"));
};

// Return a copy of a specification that is as wide as its column.
const fitted = async (spec, width) => {
  const own = adapted(spec, width);
  const heightBySteps =
    typeof own.height === "object" ||
    (own.height === undefined && isDiscrete((own.encoding ?? own.layer?.[0]?.encoding)?.y));
  if (!isComposite(own) && !heightBySteps) {
    let natural = own.width ?? CONFIG.view.continuousWidth;
    const steps = own.width === undefined && isDiscrete((own.encoding ?? own.layer?.[0]?.encoding)?.x);
    if (typeof natural !== "number" || steps) {
      natural = await measured(own, width);
      if (natural <= width) return own;
    }
    own.width = natural >= FULL ? width : Math.min(width, natural + 90);
    own.autosize = { type: "fit-x", contains: "padding" };
    return own;
  }
  const leaves = [];
  visit(own, (view) => {
    const isLeaf = "mark" in view || "layer" in view;
    const discrete = isDiscrete((view.encoding ?? view.layer?.[0]?.encoding)?.x);
    if (isLeaf && !leaves.some(({ view: above }) => above.layer?.includes(view)))
      if (typeof view.width === "number" || !discrete)
        leaves.push({ view, natural: view.width ?? CONFIG.view.continuousWidth });
  });
  const scale = (factor) => {
    for (const { view, natural } of leaves)
      view.width = Math.max(20, Math.floor(natural * factor));
    return own;
  };
  // What is not plot (axes, legends, gaps) hardly changes with the width of the plots. Wider plots
  // are compared, as a legend may be wider than narrow ones.
  const [whole, twice] = [await measured(scale(1), width), await measured(scale(2), width)];
  const plots = twice - whole;
  let factor = plots > 0 ? (width - (whole - plots)) / plots : 1;
  if (whole < FULL) factor = Math.min(factor, 1);
  for (let tries = 0; tries < 3; tries += 1) {
    const over = (await measured(scale(factor), width)) - width;
    if (over <= 0 || plots <= 0) break;
    factor -= (over + 1) / plots;
  }
  return own;
};

// Texts over other texts are hidden: the table and the tooltips have them.
const GAP = 2; // pixels between texts side by side
const hideOverlaps = (svg) => {
  const texts = [...svg.querySelectorAll("text")].filter(
    (text) => text.textContent && text.getAttribute("opacity") !== "0",
  );
  const isMark = (text) => text.closest(".mark-text")?.classList.contains("role-mark");
  const shown = [];
  const hidden = new Map();
  for (const text of texts.sort((one, other) => isMark(one) - isMark(other))) {
    const box = text.getBoundingClientRect();
    const over = shown.some(
      (other) =>
        box.left < other.right + GAP && other.left < box.right + GAP &&
        box.top + 1 < other.bottom && other.top + 1 < box.bottom,
    );
    if (over && isMark(text)) {
      text.setAttribute("opacity", "0");
      const group = text.closest(".mark-text");
      hidden.set(group, (hidden.get(group) ?? 0) + 1);
    } else shown.push(box);
  }
  // A grid in which only some cells have their number would look as if the others had none.
  for (const [group, count] of hidden)
    if (count > 8)
      for (const text of group.querySelectorAll("text")) text.setAttribute("opacity", "0");
};

// Texts that stick out of their chart get smaller, down to 70 %.
const shrinkTexts = (svg) => {
  const frame = svg.getBoundingClientRect();
  for (const text of svg.querySelectorAll(".mark-text.role-mark text")) {
    const box = text.getBoundingClientRect();
    const out = Math.max(box.right - frame.right, frame.left - box.left);
    if (out <= 0 || !box.width) continue;
    const share = Math.max(0.7, (box.width - out - 1) / box.width);
    text.style.fontSize = `${share * parseFloat(getComputedStyle(text).fontSize)}px`;
  }
};

const finish = (target, title) => {
  const svg = target.querySelector("svg.marks");
  if (!svg) return;
  svg.setAttribute("role", "img");
  svg.removeAttribute("aria-hidden");
  if (title) svg.setAttribute("aria-label", title);
  for (const label of svg.querySelectorAll(".role-axis-label text")) {
    const whole = label.__data__?.datum?.value;
    if (typeof whole !== "string" || !label.textContent.includes("…")) continue;
    const tip = document.createElementNS("http://www.w3.org/2000/svg", "title");
    tip.textContent = whole;
    label.append(tip);
    label.style.pointerEvents = "auto";
    label.closest(".role-axis-label").style.pointerEvents = "auto";
  }
  shrinkTexts(svg);
  hideOverlaps(svg);
};

const drawFitted = async (target, spec, width) =>
  embed(target, await fitted(spec, width), width);

// Calls back when an element gets a width, and whenever its width changes.
const onWidth = (element, change) => {
  let last = 0;
  const observer = new ResizeObserver(() => {
    const width = Math.floor(element.clientWidth);
    if (width > 0 && width !== last) {
      last = width;
      change(width);
    }
  });
  observer.observe(element);
  return observer;
};

/* Draw a Vega-Lite specification into an element, in its width; return a promise of Vega's view.

When the width changes, a single or layered view is kept and resized, so that its data, signals and
listeners stay. Other views are drawn again with their current named data; the element then sends
the event "aico-lab-drawn" with the new view as `detail`. */
const draw = (host, spec) =>
  new Promise((resolve, reject) => {
    host.classList.add("aico-lab-plot");
    let view = null;
    let busy = Promise.resolve();
    const change = async (width) => {
      if (view && !isComposite(spec)) {
        const own = await fitted(spec, width);
        await view.width(own.width).resize().runAsync();
      } else {
        const datasets = { ...spec.datasets };
        for (const name of view ? Object.keys(datasets) : [])
          datasets[name] = view.data(name).map((row) => ({ ...row }));
        const target = document.createElement("div");
        const made = await drawFitted(target, { ...spec, datasets }, width);
        view?.finalize();
        view = made.view;
        host.replaceChildren(target);
        host.dispatchEvent(new CustomEvent("aico-lab-drawn", { detail: view }));
        resolve(view);
      }
      finish(host, spec.description ?? "");
    };
    onWidth(host, (width) => {
      busy = busy.then(() => change(width)).catch((error) => {
        console.error(error);
        reject(error);
      });
    });
  });

// Figures are drawn one after the other, those on the screen first, so that the page stays usable.
const tasks = new Map();
let working = false;
const inSight = (element) => {
  const box = element.getBoundingClientRect();
  return box.bottom > -200 && box.top < window.innerHeight + 200 && box.height > 0;
};
const work = async () => {
  if (working) return;
  working = true;
  while (tasks.size) {
    const next = [...tasks.keys()].find(inSight) ?? tasks.keys().next().value;
    const task = tasks.get(next);
    tasks.delete(next);
    try {
      await task();
    } catch (error) {
      console.error(error);
    }
    await new Promise((resume) => setTimeout(resume));
  }
  working = false;
};

const show = (figure) => {
  const plot = figure.querySelector(".aico-lab-plot");
  const spec = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
  const picture = plot.querySelector("img");
  const title = picture?.alt ?? "";
  let made = null;
  // A print does not wait until charts are drawn again, so paper gets the picture of a wide chart,
  // unless it has only a part of the marks.
  const print = (begins) => {
    const shown = plot.firstElementChild;
    if (!begins) picture.replaceWith(picture.chart ?? picture);
    else if (made && shown !== picture && plot.dataset.drawn > PAPER) {
      picture.chart = shown;
      shown.replaceWith(picture);
    }
  };
  if (picture && !("thinned" in picture.dataset)) {
    window.addEventListener("beforeprint", () => print(true));
    window.addEventListener("afterprint", () => print(false));
  }
  onWidth(plot, (width) => {
    tasks.set(plot, async () => {
      const target = document.createElement("div");
      const drawn = await drawFitted(target, spec, width);
      made?.finalize();
      made = drawn;
      plot.replaceChildren(target);
      finish(plot, title);
      plot.dataset.drawn = width; // pixels, for tests and for scripts that wait
    });
    work();
  });
  addTable(figure, spec);
};

// The rows behind a chart: those of the data set that knows most of the metric's columns.
const rowsOf = (spec) => {
  const sets = Object.values(spec.datasets ?? {});
  visit(spec, (view) => Array.isArray(view.data?.values) && sets.push(view.data.values));
  const columns = spec.usermeta?.columns ?? {};
  const known = (rows) => Object.keys(rows[0] ?? {}).filter((name) => name in columns).length;
  sets.sort((one, other) => known(other) - known(one) || other.length - one.length);
  const rows = sets[0] ?? [];
  let names = Object.keys(rows[0] ?? {});
  if (known(rows) * 2 >= names.length) names = names.filter((name) => name in columns);
  return { rows, names, headings: names.map((name) => columns[name] ?? name) };
};

const written = (value) => {
  if (value === null || value === undefined) return "";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  if (typeof value === "number") return value.toLocaleString("en", { maximumSignificantDigits: 4 });
  return String(value).replace(/T00:00:00(\.0+)?$/, "");
};

const csvOf = (spec) => {
  const { rows, names } = rowsOf(spec);
  const cell = (value) => {
    let text = value === null || value === undefined ? "" : String(value);
    text = text.replace(/T00:00:00(\.0+)?$/, "");
    // A spreadsheet must not take a text for a formula.
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [names, ...rows.map((row) => names.map((name) => row[name]))]
    .map((row) => row.map(cell).join(",")).join("\r\n");
};

const textOf = (figure, selector) => figure.querySelector(selector)?.textContent ?? "";

// The chart as a picture with its title and caption, in the light theme.
const pictureOf = async (figure, spec) => {
  const width = 640;
  const lines = (selector, font) =>
    textOf(figure, selector) ? wrap(textOf(figure, selector), width - 20, font) : [];
  const whole = await fitted(spec, width);
  const said = ["question", "caption"].flatMap((name) => lines(`.aico-lab-${name}`, "13px"));
  whole.title = { text: lines("figcaption strong", "bold 16px"), subtitle: said };
  return (await embed(document.createElement("div"), whole, width, "white")).view;
};

const KINDS = {
  PNG: async (figure, spec) => {
    const view = await pictureOf(figure, spec);
    const canvas = await view.toCanvas(2);
    view.finalize();
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  },
  SVG: async (figure, spec) => {
    const view = await pictureOf(figure, spec);
    const svg = await view.toSVG();
    view.finalize();
    return new Blob([svg], { type: "image/svg+xml" });
  },
  CSV: async (figure, spec) => new Blob([csvOf(spec)], { type: "text/csv" }),
};

const copy = async (kind, blob) => {
  if (kind === "PNG") await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
  else await navigator.clipboard.writeText(await blob.text());
};

const save = (kind, blob, name) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  const plain = name.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
  link.download = `${[...plain].slice(0, 60).join("")
    || "chart"}.${kind.toLowerCase()}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
};

const element = (name, text, parent) => {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  parent?.append(made);
  return made;
};

const toolsOf = (figure, spec) => {
  const tools = element("div");
  tools.className = "aico-lab-tools";
  const actions = { Copy: copy, Save: save };
  if (!navigator.clipboard || !window.ClipboardItem) delete actions.Copy;
  for (const [name, act] of Object.entries(actions)) {
    element("span", `${name} as`, tools);
    for (const [kind, make] of Object.entries(KINDS)) {
      const button = element("button", kind, tools);
      button.type = "button";
      button.setAttribute("aria-label", `${name} as ${kind}`);
      button.addEventListener("click", async () => {
        let said = act === copy ? "Copied" : "Saved";
        try {
          const name = textOf(figure, ".aico-lab-question") || textOf(figure, "figcaption strong");
          await act(kind, await make(figure, spec), name);
        } catch (error) {
          console.warn(error);
          said = "Failed";
        }
        button.textContent = said;
        setTimeout(() => { button.textContent = kind; }, 1500);
      });
    }
  }
  return tools;
};

const tableOf = (spec) => {
  const { rows, names, headings } = rowsOf(spec);
  const box = element("div");
  box.className = "aico-lab-table";
  box.tabIndex = 0; // so that the keyboard can scroll it
  const table = element("table", "", box);
  const sides = names.map((name) =>
    rows.some((row) => typeof row[name] === "number") ? "" : "text");
  const add = (cells, kind, parent) => {
    const line = element("tr", "", parent);
    cells.forEach((text, at) => {
      const cell = element(kind, text, line);
      if (sides[at]) cell.className = sides[at];
      if (kind === "th") cell.scope = "col";
    });
  };
  add(headings, "th", element("thead", "", table));
  const body = element("tbody", "", table);
  for (const row of rows.slice(0, ROWS)) add(names.map((name) => written(row[name])), "td", body);
  if (rows.length > ROWS)
    element("p", `… and ${(rows.length - ROWS).toLocaleString("en")} more rows; the CSV has all.`, box);
  return box;
};

const addTable = (figure, spec) => {
  let details = figure.querySelector("details");
  if (!details) {
    details = element("details", "", figure);
    element("summary", "Table", details);
  }
  details.addEventListener("toggle", () => {
    if (!details.open || details.querySelector(".aico-lab-tools")) return;
    details.querySelector("summary").after(toolsOf(figure, spec), tableOf(spec));
  });
};

const waiting = window.aicoLabCharts || [];
window.aicoLab = { ...window.aicoLab, draw, config: CONFIG };
if (Array.isArray(waiting)) {
  window.aicoLabCharts = { push: show };
  waiting.forEach(show);
}
