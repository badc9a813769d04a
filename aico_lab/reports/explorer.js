// Draw the explorer of a page: decode the cube, sum it by the chosen filters, update the charts.
// `host` is the section that contains the cube as JSON, and the tiles of the whole selection.

const told = JSON.parse(host.querySelector('script[type="application/json"]').textContent);
const DAY_MS = 864e5;
const NO_HOUR = 24, WEEK = 25, SLOTS = 26; // places after the hours of a day
const WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const NOTHING = "Nothing to draw for what is chosen";
const FEW = 30; // messages, whose mean varies much by chance
const FIRST = 10; // bars of channels or people that are shown at first
const SIDES = ["assistant", "user"];
const SIDES_SAID = ["the companion", "people"]; // as on the rest of the page
const DAYS = told.last - told.first + 1;
const SVG = "http://www.w3.org/2000/svg";

// --- numbers and days -------------------------------------------------------------------------

const written = (number, digits = 0) =>
  number.toLocaleString("en-US", {minimumFractionDigits: digits, maximumFractionDigits: digits});
const counted = (number, noun) => `${written(number)} ${noun}${number === 1 ? "" : "s"}`;
const share = (part, whole) => (whole ? `${written((100 * part) / whole, 1)} %` : "–");
const withMinus = (text) => text.replace("-", "−");
const iso = (day) => new Date(day * DAY_MS).toISOString().slice(0, 10);
const LONG_MONTHS = "January February March April May June July August September October November December".split(" ");
const MONTHS = LONG_MONTHS.map((month) => month.slice(0, 3));
const inWords = (day) => {
  const date = new Date(day * DAY_MS);
  return `${date.getUTCDate()} ${LONG_MONTHS[date.getUTCMonth()]} ${date.getUTCFullYear()}`;
};
const hours = (hour) => `${String(hour).padStart(2, "0")}:00–${String(hour + 1).padStart(2, "0")}:00`;
const signed = (value) => {
  const text = Math.abs(value).toFixed(2);
  return text === "0.00" ? text : (value < 0 ? "−" : "+") + text;
};
const dayOf = (year, month) => new Date(0).setUTCFullYear(year, month, 1) / DAY_MS;

// A unit of days counts days; a unit of months counts months since the year 0.
const UNITS = [
  {name: "day", days: 1}, {name: "week", days: 7}, {name: "month", months: 1},
  {name: "quarter", months: 3}, {name: "year", months: 12}, {name: "decade", months: 120},
  {name: "century", months: 1200},
];
const MONDAY = 3; // 1970-01-01 was a Thursday

function placeOf(unit, day) {
  if (unit.days) return Math.floor((day + (unit.days === 7 ? MONDAY : 0)) / unit.days);
  const date = new Date(day * DAY_MS);
  return Math.floor((date.getUTCFullYear() * 12 + date.getUTCMonth()) / unit.months);
}

function startOf(unit, place) {
  if (unit.days) return place * unit.days - (unit.days === 7 ? MONDAY : 0);
  const months = place * unit.months;
  return dayOf(Math.floor(months / 12), ((months % 12) + 12) % 12);
}

// The bins of the days `from` to `to` in the shortest unit that makes at most `most` of them.
function binsOf(from, to, most, units = UNITS) {
  const unit = units.find((u) => placeOf(u, to) - placeOf(u, from) < most) ?? units.at(-1);
  const first = placeOf(unit, from), count = placeOf(unit, to) - first + 1;
  const starts = Array.from({length: count + 1}, (_, i) =>
    Math.min(Math.max(startOf(unit, first + i), from), to + 1));
  const of = new Int32Array(to - from + 1);
  for (let bin = 0; bin < count; bin++) of.fill(bin, starts[bin] - from, starts[bin + 1] - from);
  return {unit: unit.name, count, starts, of};
}

// The name of a bin in words.
const begins = ({unit, starts}, bin) =>
  unit === "day" ? inWords(starts[bin]) : `${unit} from ${inWords(starts[bin])}`;

// --- the cube ---------------------------------------------------------------------------------

async function decoded() {
  const packed = Uint8Array.from(atob(told.data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  let at = 0;
  const column = () => {
    const numbers = new Float64Array(told.cells);
    for (let i = 0; i < told.cells; i++) {
      let byte, number = 0, scale = 1;
      do {
        byte = bytes[at++];
        number += (byte & 127) * scale; // no bit shifts: keys have more than 32 bits
        scale *= 128;
      } while (byte > 127);
      numbers[i] = number;
    }
    return numbers;
  };
  const keys = column();
  const cube = {};
  for (const name of told.measures) cube[name] = column();
  cube.sentiment = cube.sentiment.map((z) => (z % 2 ? -(z + 1) / 2 : z / 2));
  for (const name of ["slot", "day", "end", "side", "person", "channel"])
    cube[name] = new Int32Array(told.cells);
  const people = Math.max(told.people.length, 1);
  for (let i = 0, key = 0; i < told.cells; i++) {
    key += keys[i];
    let rest = key;
    for (const [name, size] of [["slot", SLOTS], ["day", DAYS], ["side", 2], ["person", people]]) {
      cube[name][i] = rest % size;
      rest = Math.floor(rest / size);
    }
    cube.channel[i] = rest;
    const day = cube.day[i];
    const sunday = day + 6 - ((day + told.first + MONDAY) % 7 + 7) % 7;
    cube.end[i] = cube.slot[i] === WEEK ? Math.min(sunday, DAYS - 1) : day;
  }
  return cube;
}

// Sum the cells that pass the filters. A chart of one dimension ignores the filter of that
// dimension, so that it shows the alternatives to what is chosen.
function summed(cube, chosen, whole, zoom) {
  const amounts = () => Object.fromEntries(told.measures.map((name) => [name, 0]));
  const all = amounts();
  const byTime = new Float64Array(whole.count), byDay = new Float64Array(DAYS);
  const bySlot = new Float64Array(168), bySide = [0, 0];
  const byChannel = new Float64Array(told.channels.length);
  const byPerson = new Float64Array(told.people.length), active = new Float64Array(byPerson.length);
  const lines = SIDES.map(() => Array.from({length: zoom.count}, amounts));
  let hourless = 0, dayless = 0, cut = 0;
  for (let i = 0; i < told.cells; i++) {
    const messages = cube.messages[i], day = cube.day[i], side = cube.side[i];
    const inTime = day >= chosen.from && cube.end[i] <= chosen.to;
    const failed =
      (inTime ? 0 : 1) |
      (chosen.side < 0 || side === chosen.side ? 0 : 2) |
      (chosen.channel < 0 || cube.channel[i] === chosen.channel ? 0 : 4) |
      (chosen.person < 0 || cube.person[i] === chosen.person ? 0 : 8);
    if (!(failed & ~1)) byTime[whole.of[day]] += messages;
    if (!(failed & ~2)) bySide[side] += messages;
    if (!(failed & ~4)) byChannel[cube.channel[i]] += messages;
    if (!(failed & ~8)) byPerson[cube.person[i]] += messages;
    if (failed === 1 && day <= chosen.to && cube.end[i] >= chosen.from) cut += messages;
    if (failed) continue;
    const line = lines[side][zoom.of[day - chosen.from]];
    for (const name of told.measures) {
      all[name] += cube[name][i];
      line[name] += cube[name][i];
    }
    active[cube.person[i]] += messages;
    const slot = cube.slot[i];
    if (slot < NO_HOUR) bySlot[(((day + told.first + MONDAY) % 7 + 7) % 7) * 24 + slot] += messages;
    else hourless += messages;
    if (slot === WEEK) dayless += messages;
    else byDay[day] += messages;
  }
  return {all, byTime, byDay, bySlot, bySide, byChannel, byPerson, active, lines, hourless, dayless, cut};
}

// --- elements ---------------------------------------------------------------------------------

// Names reach the page as text nodes only; markup is made of numbers and days.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function figure(title, {wide = false, table}) {
  const caption = make("figcaption", {}, title);
  const body = make("div", {class: "plot"});
  const rows = make("div", {class: "rows"});
  const details = make("details", {}, make("summary", {}, "Table"), rows);
  const made = {root: make("figure", wide ? {class: "wide"} : {}, caption, body, details), caption, body};
  made.update = () => {
    if (!details.open) return;
    const [heads, lines] = table();
    rows.replaceChildren(make("table", {},
      make("thead", {}, make("tr", {}, ...heads.map((h) => make("th", {scope: "col"}, h)))),
      make("tbody", {}, ...lines.map((line) => make("tr", {}, ...line.map((cell, i) =>
        i ? make("td", {}, cell) : make("th", {scope: "row"}, make("bdi", {}, cell))))))));
  };
  details.addEventListener("toggle", () => made.update());
  return made;
}

function ticks(low, high, whole) {
  const raw = (high - low || 1) / 4;
  const power = 10 ** Math.floor(Math.log10(raw));
  let step = [1, 2, 5, 10].find((s) => s * power >= raw * 0.999) * power;
  if (whole) step = Math.max(1, step);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-6; at++) found.push(at * step || 0); // never −0
  return {found, digits: Math.max(0, Math.ceil(-Math.log10(step) - 1e-9))};
}

const STEPS = [
  [UNITS[0], 1], [UNITS[1], 1], [UNITS[1], 2], [UNITS[2], 1], [UNITS[2], 2], [UNITS[2], 3],
  [UNITS[2], 6], ...[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000].map((n) => [UNITS[4], n]),
];

// Ticks of days, Mondays, months or years, few enough for their labels. The first label, and the
// first of each year, names the year.
function timeTicks(from, to, width) {
  for (const [unit, every] of STEPS) {
    const last = Math.floor(placeOf(unit, to) / every), found = [];
    if ((last - Math.floor(placeOf(unit, from) / every)) * 76 > width) continue;
    let year;
    for (let n = Math.ceil(placeOf(unit, from) / every); n <= last; n++) {
      const day = startOf(unit, n * every);
      if (day < from) continue;
      const date = new Date(day * DAY_MS), y = date.getUTCFullYear(), month = MONTHS[date.getUTCMonth()];
      const label = unit.months === 12 ? "" : unit.days ? `${date.getUTCDate()} ${month}` : month;
      found.push([day, y === year ? label : `${label} ${y}`.trim()]);
      year = y;
    }
    if (found.length) return found;
  }
  return [[from, inWords(from)]];
}

// A frame for values over time: scales, and axes as markup.
function timeFrame(width, height, from, to, low, high, {whole = false, unit = ""} = {}) {
  const {found, digits} = ticks(low, high, whole);
  const label = (value) => withMinus(written(value, digits)) + unit;
  const left = 10 + 7 * Math.max(...found.map((value) => label(value).length), 1);
  const right = width - 8, top = 8, bottom = height - 24;
  const x = (day) => left + ((day - from) / (to - from + 1)) * (right - left);
  const y = (value) => bottom - ((value - low) / (high - low || 1)) * (bottom - top);
  let axes = "";
  for (const value of found)
    axes += `<line class="grid" x1="${left}" x2="${right}" y1="${y(value).toFixed(1)}" y2="${y(value).toFixed(1)}"/>` +
      `<text x="${left - 6}" y="${(y(value) + 4).toFixed(1)}" text-anchor="end">${label(value)}</text>`;
  let free = -Infinity;
  for (const [day, text] of timeTicks(from, to, right - left)) {
    const half = text.length * 3.4, at = Math.min(Math.max(x(day), left + half - 8), width - half);
    if (at - half < free) continue;
    free = at + half + 8;
    axes += `<line class="tick" x1="${x(day).toFixed(1)}" x2="${x(day).toFixed(1)}" y1="${bottom}" y2="${bottom + 5}"/>` +
      `<text x="${at.toFixed(1)}" y="${bottom + 18}" text-anchor="middle">${text}</text>`;
  }
  return {x, y, left, right, top, bottom, axes};
}

const firstDay = (unit) => (unit === "day" ? "Day" : `First day of the ${unit}`);
const svg = (width, height, label, content) =>
  `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${label}">${content}</svg>`;

// --- the explorer -----------------------------------------------------------------------------

function explore(cube) {
  const everything = {from: 0, to: DAYS - 1, side: -1, channel: -1, person: -1};
  const chosen = {...everything};
  let shown = chosen; // on paper: everything
  let sums, whole, zoom, room;
  const units = cube.slot.includes(WEEK) ? UNITS.slice(1) : UNITS;
  const from = () => told.first + shown.from, to = () => told.first + shown.to;
  const change = (what) => {
    Object.assign(chosen, what);
    request();
  };

  // Controls.
  const label = (text, control) => make("label", {}, make("span", {}, text), control);
  const dates = ["from", "to"].map((end) => {
    const input = make("input", {type: "date", min: iso(told.first), max: iso(told.last)});
    input.addEventListener("change", () => {
      const day = Math.round(Date.parse(input.value) / DAY_MS) - told.first;
      if (Number.isNaN(day)) return request(); // shows the day that is chosen
      const within = Math.min(Math.max(day, 0), DAYS - 1);
      const both = {from: chosen.from, to: chosen.to, [end]: within};
      change(end === "from" ? {from: within, to: Math.max(both.to, within)} : {to: within, from: Math.min(both.from, within)});
    });
    return input;
  });
  const choice = (dimension, first, names, order = names.map((_, code) => code)) => {
    const select = make("select", {}, make("option", {value: -1}, first),
      ...order.map((code) => make("option", {value: code, dir: "auto"}, names[code])));
    select.addEventListener("change", () => change({[dimension]: Number(select.value)}));
    return select;
  };
  const selects = {
    side: choice("side", "Both sides", SIDES_SAID, [1, 0]),
    channel: choice("channel", "All channels", told.channels),
    person: choice("person", "All people", told.people),
  };
  const button = (text, what) => {
    const made = make("button", {type: "button"}, text);
    made.addEventListener("click", () => change(what));
    return made;
  };
  const wholePeriod = button("Whole period", {from: 0, to: DAYS - 1});
  const reset = button("Clear all filters", everything);
  const controls = make("div", {class: "controls", role: "group", "aria-label": "Filters"},
    label("From", dates[0]), label("To", dates[1]), label("Side", selects.side));
  if (told.channels.length > 1) controls.append(label("Channel", selects.channel));
  if (told.people.length > 1) controls.append(label("Person", selects.person));
  controls.append(wholePeriod, reset);

  // Messages over time, with the brush.
  const history = figure("", {wide: true, table: () => [
    [firstDay(whole.unit), "Messages"],
    Array.from(sums.byTime, (n, bin) => [iso(whole.starts[bin]), written(n)]),
  ]});
  const picture = document.createElementNS(SVG, "svg");
  picture.innerHTML = '<g role="img"></g><rect class="brush"/>' +
    '<rect class="handle" role="slider" tabindex="0" aria-label="First day"/>' +
    '<rect class="handle" role="slider" tabindex="0" aria-label="Last day"/>';
  const [bars, brush, ...handles] = picture.children;
  history.body.append(picture);
  let frame, width;
  const dayAt = (event) => {
    const box = picture.getBoundingClientRect();
    const x = ((event.clientX - box.left) * width) / box.width;
    const day = Math.floor(((x - frame.left) / (frame.right - frame.left)) * DAYS);
    return {x, day: Math.min(Math.max(day, 0), DAYS - 1)};
  };
  const binEnds = (day) => {
    const bin = whole.of[day];
    return [whole.starts[bin] - told.first, whole.starts[bin + 1] - 1 - told.first];
  };
  const isWhole = (c) => c.from === 0 && c.to === DAYS - 1;
  const select = (a, b) => change({from: binEnds(Math.min(a, b))[0], to: binEnds(Math.max(a, b))[1]});
  picture.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const {x, day} = dayAt(event), before = {...chosen};
    const ends = [frame.x(told.first + before.from), frame.x(told.first + before.to + 1)];
    const near = ends.map((end) => Math.abs(end - x)), end = near[0] <= near[1] ? 0 : 1;
    const moves = !isWhole(before) && day >= before.from && day <= before.to;
    let dragged = false;
    const onMove = (moved) => {
      const now = dayAt(moved);
      if (Math.abs(now.x - x) > 3) dragged = true;
      if (!dragged) return;
      if (near[end] < 10) select(now.day, end ? before.from : before.to);
      else if (moves) {
        const by = Math.min(Math.max(now.day - day, -before.from), DAYS - 1 - before.to);
        change({from: before.from + by, to: before.to + by});
      } else select(day, now.day);
    };
    const onUp = () => {
      picture.removeEventListener("pointermove", onMove);
      picture.removeEventListener("pointerup", onUp);
      picture.removeEventListener("pointercancel", onUp);
      if (!dragged && !moves && near[end] >= 10) change({from: 0, to: DAYS - 1});
    };
    picture.setPointerCapture(event.pointerId);
    picture.addEventListener("pointermove", onMove);
    picture.addEventListener("pointerup", onUp);
    picture.addEventListener("pointercancel", onUp);
  });
  handles.forEach((handle, end) => handle.addEventListener("keydown", (event) => {
    const at = end ? chosen.to : chosen.from;
    const bin = whole.of[at] + {ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1}[event.key];
    const ends = {Home: 0, End: DAYS - 1}[event.key];
    if (event.key === "Escape") change({from: 0, to: DAYS - 1});
    else if (ends !== undefined) change(end ? {to: Math.max(ends, chosen.from)} : {from: Math.min(ends, chosen.to)});
    else if (!Number.isNaN(bin)) {
      const day = whole.starts[Math.min(Math.max(bin, 0), whole.count - 1) + end] - end - told.first;
      change(end ? {to: Math.max(day, chosen.from)} : {from: Math.min(day, chosen.to)});
    } else return;
    event.preventDefault();
  }));
  function drawHistory() {
    const height = 150, most = Math.max(...sums.byTime, 1);
    width = room.wide;
    frame = timeFrame(width, height, told.first, told.last, 0, most, {whole: true});
    const inside = (bin) => whole.starts[bin] < to() + 1 && whole.starts[bin + 1] > from();
    let marks = "";
    sums.byTime.forEach((n, bin) => {
      if (!n) return;
      const x = frame.x(whole.starts[bin]), next = frame.x(whole.starts[bin + 1]);
      const gap = next - x > 4 ? 1 : 0, top = Math.min(frame.y(n), frame.bottom - 1);
      marks += `<rect class="${inside(bin) ? "bar" : "off"}" x="${x.toFixed(1)}" y="${top.toFixed(1)}"` +
        ` width="${Math.max(next - x - gap, 0.8).toFixed(1)}" height="${(frame.bottom - top).toFixed(1)}">` +
        `<title>${begins(whole, bin)}: ${counted(n, "message")}</title></rect>`;
    });
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    bars.innerHTML = frame.axes + marks;
    const top = sums.byTime.indexOf(Math.max(...sums.byTime));
    bars.setAttribute("aria-label", `Messages by ${whole.unit}, at most ${written(most)}: ${begins(whole, top)}`);
    history.caption.textContent = `Messages by ${whole.unit}`;
    const [x, end] = [frame.x(from()), frame.x(to() + 1)];
    for (const [name, value] of Object.entries({x, y: frame.top, width: Math.max(end - x, 1), height: frame.bottom - frame.top}))
      brush.setAttribute(name, value);
    brush.classList.toggle("whole", isWhole(shown));
    handles.forEach((handle, which) => {
      const at = {x: (which ? end : x) - 4, y: (frame.top + frame.bottom) / 2 - 14, width: 8, height: 28, rx: 4};
      const now = which ? shown.to : shown.from;
      for (const [name, value] of Object.entries(at)) handle.setAttribute(name, value);
      handle.setAttribute("aria-valuemin", 0);
      handle.setAttribute("aria-valuemax", DAYS - 1);
      handle.setAttribute("aria-valuenow", now);
      handle.setAttribute("aria-valuetext", inWords(told.first + now));
    });
  }

  // Weekday by hour.
  const week = figure("Messages by weekday and hour", {table: () => [
    ["Hour", ...WEEKDAYS],
    Array.from({length: 24}, (_, hour) => [hours(hour).slice(0, 5), ...WEEKDAYS.map((_, d) => written(sums.bySlot[d * 24 + hour]))]),
  ]});
  function drawWeek() {
    const width = room.column, left = 34, cell = (width - left) / 24, line = 22;
    const most = Math.max(...sums.bySlot), top = sums.bySlot.indexOf(most);
    let marks = "";
    WEEKDAYS.forEach((name, day) => {
      marks += `<text x="0" y="${day * line + 15}">${name}</text>`;
      for (let hour = 0; hour < 24; hour++) {
        const n = sums.bySlot[day * 24 + hour];
        marks += `<rect class="cell" x="${(left + hour * cell).toFixed(1)}" y="${day * line}" width="${(cell - 1).toFixed(1)}"` +
          ` height="${line - 1}"/>` + (n ? `<rect class="bar" x="${(left + hour * cell).toFixed(1)}" y="${day * line}"` +
          ` width="${(cell - 1).toFixed(1)}" height="${line - 1}" fill-opacity="${(0.12 + (0.88 * n) / most).toFixed(3)}">` +
          `<title>${name} ${hours(hour)}: ${counted(n, "message")}</title></rect>` : "");
      }
    });
    for (let hour = 0; hour < 24; hour += cell < 9 ? 6 : 3)
      marks += `<text x="${(left + hour * cell).toFixed(1)}" y="${7 * line + 16}">${hour}</text>`;
    const said = !most ? (sums.all.messages ? "The hours of these messages are unknown" : NOTHING)
      : `Most in one hour of the week${sums.hourless || sums.cut || told.leftOut ? ", of the messages with an hour" : ""}: ${counted(most, "message")}, ${WEEKDAYS[Math.floor(top / 24)]} ${hours(top % 24)}`;
    week.body.innerHTML = svg(width, 7 * line + 20, said, marks);
    week.body.append(make("p", {class: "note"}, most ? `${said} (${told.zone}).` : `${said}.`));
  }

  // Bars of a dimension, of which each is a button that filters. What is merged has no bar: it would
  // be so long that nothing could be seen of the others.
  function barsOf(title, dimension, names, values, {own = names.length, order = names.map((_, i) => i), wide} = {}) {
    const total = () => values().reduce((sum, n) => sum + n, 0);
    const made = figure(title, {wide, table: () => [
      ["", "Messages", "Share"],
      order.map((code) => [names[code], written(values()[code]), share(values()[code], total())]),
    ]});
    const rows = order.map((code) => {
      const bar = make("span", {class: `bar ${dimension === "side" ? SIDES[code] : ""}`});
      const count = make("span", {class: "count"});
      const name = make("bdi", {class: "name", title: names[code]}, names[code]);
      const row = make("button", {type: "button"}, name, make("span", {class: "track"}, ...(code < own || !own ? [bar] : [])), count);
      row.addEventListener("click", () => change({[dimension]: chosen[dimension] === code ? -1 : code}));
      return {code, row, bar, count};
    });
    const list = make("ul", {class: "bars"}, ...rows.map(({code, row}) => make("li", code < own && code >= FIRST ? {class: "later"} : {}, row)));
    made.body.append(list);
    if (own > FIRST) {
      const more = make("button", {type: "button", class: "more", "aria-expanded": false}, `Show all ${own}`);
      more.addEventListener("click", () => {
        const all = list.classList.toggle("all");
        more.setAttribute("aria-expanded", all);
        more.textContent = all ? `Show the first ${FIRST}` : `Show all ${own}`;
      });
      made.body.append(more);
    }
    made.draw = () => {
      const of = values(), most = Math.max(...(own ? of.slice(0, own) : of), 1), all = total();
      rows.forEach(({code, row, bar, count}) => {
        bar.style.width = `${(100 * of[code]) / most}%`;
        bar.hidden = !of[code];
        count.textContent = `${written(of[code])} · ${share(of[code], all)}`;
        row.setAttribute("aria-pressed", shown[dimension] === code);
        row.classList.toggle("off", shown[dimension] >= 0 && shown[dimension] !== code);
      });
    };
    return made;
  }
  const bySide = barsOf("Messages by side", "side", SIDES_SAID, () => sums.bySide, {order: [1, 0], wide: true});
  const byChannel = barsOf("Messages by channel", "channel", told.channels, () => sums.byChannel, {own: told.ownChannels});
  const byPerson = barsOf("Messages by person, and to them", "person", told.people, () => sums.byPerson, {own: told.own});

  // Means and shares of each side over the chosen days.
  function lineOf(title, value, weight, {unit = "", digits, low, high, least, zero = false}) {
    const points = () => sums.lines.map((bins) => bins.map(value));
    const made = figure(title, {table: () => {
      const found = points();
      return [[firstDay(zoom.unit), ...SIDES_SAID], Array.from({length: zoom.count}, (_, bin) => [
        iso(zoom.starts[bin]), ...found.map((of) => (of[bin] === null ? "–" : withMinus(written(of[bin], digits)) + unit)),
      ])];
    }});
    made.draw = () => {
      made.caption.textContent = `${title} by ${zoom.unit}`;
      const found = points(), known = found.flat().filter((v) => v !== null);
      const weights = sums.lines.map((bins) => bins.map(weight));
      if (!known.length) {
        made.body.replaceChildren(make("p", {class: "note"}, `${NOTHING}.`));
        return;
      }
      const width = room.column, height = 170;
      let bottom = zero ? 0 : Math.min(...known), top = Math.max(...known);
      // Equal values may differ by rounding errors, and an axis needs some length.
      const margin = 0.08 * (top - bottom) + Math.max(least - (top - bottom), 0) / (zero ? 1 : 2);
      top = Math.min(top + margin, high ?? Infinity);
      if (!zero) bottom = Math.max(bottom - margin, low ?? -Infinity);
      const frame = timeFrame(width, height, from(), to(), bottom, top, {unit});
      let marks = frame.axes;
      if (bottom < 0 && top > 0) marks += `<line class="zero" x1="${frame.left}" x2="${frame.right}" y1="${frame.y(0).toFixed(1)}" y2="${frame.y(0).toFixed(1)}"/>`;
      found.forEach((of, side) => {
        let path = "", dots = "";
        of.forEach((v, bin) => {
          if (v === null) return;
          const x = frame.x((zoom.starts[bin] + zoom.starts[bin + 1]) / 2).toFixed(1), y = frame.y(v).toFixed(1);
          path += `${bin && of[bin - 1] !== null ? "L" : "M"}${x} ${y}`;
          const few = weights[side][bin] < FEW ? ' class="few"' : "";
          dots += `<circle${few} cx="${x}" cy="${y}" r="${zoom.count > 60 ? 2 : 3}"><title>${SIDES_SAID[side]}, ` +
            `${begins(zoom, bin)}: ${withMinus(written(v, digits))}${unit} of ${counted(weights[side][bin], "message")}</title></circle>`;
        });
        marks += `<g class="${SIDES[side]}"><path d="${path}"/>${dots}</g>`;
      });
      made.body.innerHTML = svg(width, height, `${title} by ${zoom.unit}, from ${inWords(from())} to ${inWords(to())}`, marks);
      made.body.prepend(make("p", {class: "legend"}, ...[...SIDES].reverse().filter((name) => found[SIDES.indexOf(name)].some((v) => v !== null))
        .map((name) => make("span", {class: name}, SIDES_SAID[SIDES.indexOf(name)]))));
      if (weights.some((of) => of.some((n) => n > 0 && n < FEW)))
        made.body.append(make("p", {class: "note"}, `Hollow: fewer than ${FEW} messages, whose mean varies by chance.`));
    };
    return made;
  }
  const per = (part, all) => (all > 0 ? part / all : null);
  const scored = (a) => a.messages - a.unscored, worded = (a) => a.messages - a.unsegmented;
  const mood = lineOf("Mood (mean score, −1 to 1)", (a) => per(a.sentiment / told.scoreUnits, scored(a)),
    scored, {digits: 2, low: -1, high: 1, least: 0.1});
  const questions = lineOf("Share of messages with a question", (a) => per(100 * a.questions, a.messages),
    (a) => a.messages, {unit: " %", digits: 1, zero: true, high: 100, least: 4});
  const words = lineOf("Words per message", (a) => per(a.words, worded(a)), worded, {digits: 1, zero: true, least: 1});

  // Tiles, and the sentences on what is chosen and what is left out.
  const tile = Object.fromEntries([...host.querySelectorAll("[data-tile]")].map((one) => [one.dataset.tile, one]));
  const whatever = host.querySelector(".chosen");
  function drawTiles() {
    const {all, byDay, bySlot} = sums;
    const filtered = Object.keys(everything).some((name) => shown[name] !== everything[name]);
    const set = (name, value, note = "") => {
      if (!tile[name]) return;
      tile[name].querySelector(".value").textContent = value;
      tile[name].querySelector(".note").textContent = note;
    };
    const days = byDay.reduce((sum, n) => sum + (n > 0), 0);
    const byHour = Array.from({length: 24}, (_, hour) => WEEKDAYS.reduce((sum, _, day) => sum + bySlot[day * 24 + hour], 0));
    // Messages without a day or an hour may be those of a busier one.
    const unknown = (merged, what) => {
      if (merged) return `${counted(merged, "message")} ${what}`;
      return told.leftOut ? `${counted(told.leftOut, "message")} left out` : "";
    };
    const noDay = unknown(sums.dayless + sums.cut, "known by week only");
    const noHour = unknown(sums.hourless + sums.cut, "without an hour");
    const busiest = (name, amounts, noun, called, why) => {
      const most = amounts.reduce((best, n) => Math.max(best, n), 0);
      const others = amounts.reduce((sum, n) => sum + (n === most), 0) - 1;
      if (why) set(name, "–", `unknown: ${why}`);
      else if (!most) set(name, "–");
      else set(name, called(amounts.indexOf(most)), counted(most, "message") + (others ? ` (like ${counted(others, `other ${noun}`)})` : ""));
    };
    const rated = scored(all), read = worded(all);
    set("messages", written(all.messages), filtered ? `${share(all.messages, told.total)} of the selection` : "");
    if (noDay && !days) set("days", "–", `unknown: ${noDay}`);
    else set("days", (noDay ? "at least " : "") + written(days), noDay
      || `of ${counted(shown.to - shown.from + 1, "day")}${isWhole(shown) && DAYS > 1 ? " from the first to the last" : ""}`);
    if (told.apart) set("people", written(told.people.filter((name, code) => sums.active[code] > 0 && code < told.own).length));
    else set("people", told.named === null ? "–" : written(told.named), filtered ? "in the whole selection" : "");
    set("sessions", written(all.sessions));
    busiest("day", byDay, "day", (day) => inWords(told.first + day), noDay);
    busiest("hour", byHour, "hour", hours, noHour);
    set("mood", rated ? signed(all.sentiment / told.scoreUnits / rated) : "–", rated ? counted(rated, "scored message") : "no scores");
    set("words", read ? written(all.words / read, 1) : "–");
    const said = [];
    if (!isWhole(shown)) said.push(from() === to() ? inWords(from()) : `${inWords(from())} to ${inWords(to())}`);
    if (shown.side >= 0) said.push(`by ${SIDES_SAID[shown.side]}`);
    if (shown.channel >= 0) said.push(told.channels[shown.channel]);
    if (shown.person >= 0) said.push(told.people[shown.person]);
    const parts = said.flatMap((text, i) => [i ? ", " : " ", make("bdi", {}, text)]);
    whatever.replaceChildren(...(said.length
      ? [`Chosen: ${written(all.messages)} of ${counted(told.total, "message")}:`, ...parts, "."]
      : [`Chosen: all ${counted(told.total, "message")}.`]),
      " Statements with intervals in the rest of the page are those of the whole selection.");
    const notes = [];
    const why = "because too few people wrote in them, or to keep the page small";
    if (sums.hourless) notes.push(`The hour of ${counted(sums.hourless, "message")} is merged into the day or week, ${why}.`);
    if (sums.cut) notes.push(`${counted(sums.cut, "message")} known by week only are left out, since their week is not wholly chosen.`);
    host.querySelector(".merged").textContent = notes.join(" ");
  }

  const charts = [week, mood, questions, words, bySide, ...(told.channels.length > 1 ? [byChannel] : []),
    ...(told.people.length > 1 ? [byPerson] : [])];
  const grid = make("div", {class: "charts"}, history.root, ...charts.map((chart) => chart.root));
  week.draw = drawWeek;
  history.draw = drawHistory;

  function draw() {
    // Widths are read before anything is written, so that the page is laid out once.
    room = {wide: Math.max(history.body.clientWidth, 240), column: Math.max(week.body.clientWidth, 240)};
    whole = binsOf(told.first, told.last, room.wide / 3, units);
    zoom = binsOf(from(), to(), Math.floor(room.column / 9), units);
    sums = summed(cube, shown, whole, zoom);
    drawTiles();
    for (const chart of [history, ...charts]) {
      chart.draw();
      chart.update();
    }
    dates[0].value = iso(told.first + chosen.from);
    dates[1].value = iso(told.first + chosen.to);
    for (const [name, select] of Object.entries(selects)) select.value = chosen[name];
    wholePeriod.disabled = isWhole(chosen);
    reset.disabled = Object.keys(everything).every((name) => chosen[name] === everything[name]);
  }
  let asked = 0;
  function request() {
    asked ||= requestAnimationFrame(() => {
      asked = 0;
      draw();
    });
  }
  const printed = (on) => {
    shown = on ? everything : chosen;
    draw();
  };
  window.addEventListener("beforeprint", () => printed(true));
  window.addEventListener("afterprint", () => printed(false));
  matchMedia("print").addEventListener("change", (media) => printed(media.matches));

  host.querySelector(".tiles").before(controls);
  host.querySelector(".merged").after(grid);
  host.classList.add("on");
  draw();
  let known = host.clientWidth;
  new ResizeObserver(() => {
    if (host.clientWidth === known) return;
    known = host.clientWidth;
    request();
  }).observe(host);
}

try {
  explore(await decoded());
} catch (error) {
  host.classList.remove("on"); // the numbers of the whole selection stay
  console.error(error);
}
