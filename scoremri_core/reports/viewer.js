// Viewer of frames. Their images share zoom, cursor and region; images of a kind share the window,
// as shares of the initial one. Positions are fractions of width and height.
const find = (words, within = document) => within.querySelector(words);
const findAll = (words, within = document) => [...within.querySelectorAll(words)];
const viewer = find("#viewer"), [figureOf, compareOf] = findAll("template", viewer);
const { palette, frames } = JSON.parse(find("#frames-data").textContent);
const LENGTHS = [1, 2, 5, 10, 20, 50, 100, 200];  // mm, of scale bars
const PLAY_MS = 200;
const state = {};
let shown = null, wanted = null, panels = [], pending = false;

const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const rgb = bytesOf(palette), opaque = (r, g, b) => (0xff000000 | b << 16 | g << 8 | r) >>> 0;
const levels = Array.from({ length: 255 }, (_, i) => i);  // of 255, and one for missing values
const missing = opaque(70, 70, 70);
const greys = [...levels.map((i) => opaque(...Array(3).fill(i * 255 / 254))), missing];
const colours = [...levels.map((i) => opaque(...rgb.subarray(3 * i, 3 * i + 3))), missing];
const stops = levels.filter((i) => i % 18 === 0 || i === 254)
  .map((i) => `rgb(${rgb.subarray(3 * i, 3 * i + 3)})`);
const bars = { grey: "#000, #fff", difference: "#000, #fff", colour: stops };

const digits = (value) => Number.isFinite(value) ? String(Number(value.toPrecision(4))) : "-";
const limit = (value, low, high) => Math.max(low, Math.min(high, value));

async function load(image) {  // see pixels.encode
  if (image.values) return;
  const packed = new Blob([bytesOf(image.data)]).stream();
  const opened = new Response(packed.pipeThrough(new DecompressionStream("deflate")));
  const planes = new Uint8Array(await opened.arrayBuffer()), count = planes.length / 2;
  image.values = Float32Array.from({ length: count }, (_, i) => {
    const code = planes[i] + 256 * planes[count + i];
    return code === 65535 ? NaN : image.lowest + code * image.step;
  });
}

// ---- panels

function slider(label, play, count, words, moved) {
  const [range, text, button] = ["input", "span", "button"].map((name) => find(name, label));
  let timer = 0;
  const to = (value) => { range.value = value; text.textContent = words(value); moved(value - 1); };
  const next = () => {
    if (label.isConnected) to(range.valueAsNumber % Number(range.max) + 1);
    else clearInterval(timer);
  };
  Object.assign(range, { max: count, value: 1, oninput: () => to(range.valueAsNumber) });
  range.setAttribute("aria-label", play);
  button.setAttribute("aria-label", `play ${play}s`);
  button.onclick = () => {
    if (timer) timer = clearInterval(timer);
    else timer = setInterval(next, PLAY_MS);
    button.textContent = timer ? "❚❚" : "▶";
  };
  text.textContent = words(1);
  label.hidden = count < 2;
}

function makePanel(content) {
  const figure = figureOf.content.cloneNode(true).firstElementChild;
  const panel = { figure, canvas: find("canvas", figure), content, turn: 0 };
  const { length } = content.images;
  slider(find(".slider", figure), "sample", length, (n) => `${n} of ${length}`, (turn) => {
    panel.turn = turn;
    redraw();
  });
  find("b", figure).textContent = content.title;
  panel.canvas.setAttribute("aria-label", content.title);
  listen(panel);
  sizes.observe(panel.canvas);
  return panel;
}

const valuesOf = (panel) => panel.content.images[panel.turn].values;
const titled = (title) => panels.find((panel) => panel.content.title === title);

function windowOf({ kind, window: [low, high] }) {
  const [from, to] = state.windows[kind];
  return [low + from * (high - low), low + to * (high - low)];
}

function makeComparison(first, greyPanels, sd) {
  const panel = makePanel({ ...first.content, title: "Comparison" });
  const form = compareOf.content.cloneNode(true).firstElementChild;
  const [mode, left, right, part] = form.children;
  if (!sd) mode.lastElementChild.remove();
  for (const select of [left, right])
    select.append(...greyPanels.map(({ content }) => new Option(content.title)));
  const other = greyPanels.findIndex(({ content }) => /Reference|Zero-filled/.test(content.title));
  left.selectedIndex = Math.max(other, 0);
  let subtracted = {};
  panel.layers = () => {
    const [a, b] = [left, right].map((select) => valuesOf(titled(select.value)));
    const share = part.value / 100, most = first.content.window[1] / 5;
    right.hidden = mode.value === "overlay";
    part.hidden = mode.value === "difference";
    const content = panel.content = { ...first.content };
    if (mode.value === "split") {
      content.note = `${left.value} | ${right.value}`;
      return [[a, content], [b, content, { from: share }]];
    }
    if (mode.value === "overlay") {
      content.note = `${sd.content.title} over ${left.value}`;
      return [[a, content], [valuesOf(sd), sd.content, { alpha: share }]];
    }
    if (subtracted.a !== a || subtracted.b !== b)
      subtracted = { a, b, values: a.map((value, i) => value - b[i]) };
    const note = `${left.value} minus ${right.value}`;
    Object.assign(content, { kind: "difference", window: [-most, most], note });
    return [[subtracted.values, content]];
  };
  mode.onchange = () => { if (mode.value === "overlay") left.selectedIndex = 0; redraw(); };
  form.oninput = redraw;
  panel.figure.append(form);
  return panel;
}

async function show(frame) {
  wanted = frame;
  await Promise.all(frame.panels.flatMap(({ images }) => images.map(load)));
  if (wanted !== frame) return;
  const outline = ({ size, panels: all }) => JSON.stringify([size,
    all.map(({ title, images, shape }) => [title, images.length, shape])]);
  const same = shown && outline(shown) === outline(frame);
  shown = frame;
  if (same) frame.panels.forEach((content, i) => { panels[i].content = content; });
  else rebuild();
  viewer.hidden = false;
  find("h2", viewer).textContent = frame.name;
  find(".notice", viewer).textContent = frame.notice;
  find(".words", viewer).replaceChildren(...Object.entries(frame.words).flatMap(([topic, words]) => [
    Object.assign(document.createElement("dt"), { textContent: topic }),
    Object.assign(document.createElement("dd"), { textContent: words })]));
  redraw();
}

function rebuild() {
  sizes.disconnect();
  panels = shown.panels.map(makePanel);
  const key = ({ content: { kind, unit, shape } }) => [kind, unit, shape].join();
  const alike = panels.filter((panel) => key(panel) === key(panels[0])), sd = titled("Posterior sd");
  if (alike.length > 1 || sd) panels.push(makeComparison(panels[0], alike, sd));
  const [first, ...others] = panels.map(({ figure }) => figure);
  find(".figures", viewer).replaceChildren(first, ...others.slice(-1), ...others.slice(0, -1));
  const [width, height] = shown.size;
  panels.forEach(({ canvas }) => { canvas.style.aspectRatio = `${width} / ${height}`; });
  reset();
}

function reset() {
  Object.assign(state, { zoom: 1, centre: [0.5, 0.5], cursor: null, region: null,
    windows: { grey: [0, 1], colour: [0, 1], difference: [0, 1] } });
  redraw();
}

// ---- drawing

const bitmaps = new WeakMap();
function bitmap(values, content) {  // the latest of each image
  const [low, high] = windowOf(content), [rows, columns] = content.shape;
  const kept = bitmaps.get(values), key = `${content.kind} ${low} ${high}`;
  if (kept?.key === key) return kept.canvas;
  const canvas = kept?.canvas
    ?? Object.assign(document.createElement("canvas"), { width: columns, height: rows });
  const pixels = new Uint32Array(values.length), table = content.kind === "colour" ? colours : greys;
  const slope = 254 / (high - low);
  values.forEach((value, i) => {
    pixels[i] = table[Number.isFinite(value) ? Math.round(limit((value - low) * slope, 0, 254)) : 255];
  });
  canvas.getContext("2d").putImageData(
    new ImageData(new Uint8ClampedArray(pixels.buffer), columns, rows), 0, 0);
  bitmaps.set(values, { key, canvas });
  return canvas;
}

function draw(panel) {
  const { canvas } = panel, context = canvas.getContext("2d"), { width, height } = canvas;
  const layers = panel.layers ? panel.layers() : [[valuesOf(panel), panel.content]];
  const across = width * state.zoom, down = height * state.zoom;
  const x = (u) => (u - state.centre[0]) * across + width / 2;
  const y = (v) => (v - state.centre[1]) * down + height / 2;
  context.fillStyle = "#000";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingEnabled = false;
  for (const [values, content, { from = 0, alpha = 1 } = {}] of layers) {
    context.save();
    context.beginPath();
    context.rect(from * width, 0, width, height);
    context.clip();
    context.globalAlpha = alpha;
    context.drawImage(bitmap(values, content), x(0), y(0), across, down);
    context.restore();
  }
  const unit = canvas.width / (canvas.clientWidth || width);  // of a CSS pixel
  const lines = [], { region, cursor } = state, split = (layers[1]?.[2].from ?? 0) * width;
  const line = (...ends) => lines.push((path) => {
    path.moveTo(...ends);
    path.lineTo(...ends.slice(2));
  });
  if (split > 0) line(split, 0, split, height);
  if (cursor) for (const [a, b] of [[-1, 0], [1, 0], [0, -1], [0, 1]]) {
    const [u, v] = [x(cursor[0]), y(cursor[1])], [near, far] = [3 * unit, 8 * unit];
    line(u + a * near, v + b * near, u + a * far, v + b * far);
  }
  if (region?.tool === "rectangle") lines.push((path) => path.rect(x(region.a[0]), y(region.a[1]),
    (region.b[0] - region.a[0]) * across, (region.b[1] - region.a[1]) * down));
  if (region?.tool === "circle") lines.push((path) => path.arc(x(region.a[0]), y(region.a[1]),
    radius(region) / shown.size[0] * across, 0, 7));
  lines.push(...marks(width, height, unit));
  context.font = `${13 * unit}px system-ui, sans-serif`;
  [["#000", 3], ["#fff", 1.3]].forEach(([colour, thick]) => {
    Object.assign(context, { strokeStyle: colour, lineWidth: thick * unit, lineJoin: "round" });
    for (const each of lines) {
      context.beginPath();
      each(context, colour === "#fff");
      context.stroke();
    }
  });
  label(panel, layers.map(([values]) => values));
}

function label({ figure, content }, layers) {
  const ends = findAll(".scale span", figure), { kind, unit, note } = content;
  windowOf(content).forEach((value, i) => { ends[i].textContent = Number(value.toPrecision(3)); });
  find("i", figure).style.background = `linear-gradient(to right, ${bars[kind]})`;
  find("small", figure).textContent = [unit, note].filter(Boolean).join("; ");
  find("output", figure).textContent = describe(layers, content);
}

function marks(width, height, unit) {  // letters of the directions, scale bar, phase encoding
  const edge = 8 * unit, lines = [];
  const write = (words, x, y, align) => lines.push((context, fill) => {
    context.textAlign = align;
    if (!fill) return context.strokeText(words, x, y);
    context.fillStyle = "#fff";
    context.fillText(words, x, y);
  });
  const { left = "", right = "", top = "", bottom = "" } = shown.edges;
  write(left, edge, height / 2 + 4 * unit, "left");
  write(right, width - edge, height / 2 + 4 * unit, "right");
  write(top, width / 2, edge + 10 * unit, "center");
  write(bottom, width / 2, height - edge, "center");
  const perMm = width * state.zoom / shown.size[0];
  const length = LENGTHS.findLast((each) => each * perMm < width / 3) ?? LENGTHS[0];
  lines.push((path) => path.rect(edge, height - edge, length * perMm, 0));
  write(`${length} mm`, edge, height - edge - 5 * unit, "left");
  const [across, along] = shown.encode;
  const arrow = across ? "←→"[+(across > 0)] : "↑↓"[+(along > 0)];
  write(`PE ${arrow}`, width - edge, height - edge, "right");
  return lines;
}

function redraw() {
  if (pending || !shown) return;
  pending = true;
  requestAnimationFrame(() => { pending = false; panels.forEach(draw); locate(); });
}

// ---- values

function pixelAt([u, v], [rows, columns]) {
  if (u < 0 || v < 0 || u >= 1 || v >= 1) return null;
  return [Math.floor(v * rows), Math.floor(u * columns)];
}

function describe(layers, { shape }) {
  const words = [], at = state.cursor && pixelAt(state.cursor, shape);
  if (at) words.push(layers.map((values) => digits(values[at[0] * shape[1] + at[1]])).join(" | "));
  if (state.region) {
    const inside = within(state.region, layers[0], shape), n = inside.length;
    const mean = inside.reduce((sum, value) => sum + value, 0) / n;
    const sd = Math.sqrt(inside.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1));
    words.push(`region ${digits(mean)}, sd ${digits(sd)}, ${n} pixels`);
  }
  return words.join("; ") || "\u00a0";
}

const radius = ({ a, b }) => Math.hypot((b[0] - a[0]) * shown.size[0], (b[1] - a[1]) * shown.size[1]);

function within({ tool, a, b }, values, [rows, columns]) {  // pixels whose centres are inside
  const far = radius({ a, b }), between = (value, i) => (value - a[i]) * (value - b[i]) <= 0;
  return values.filter((value, i) => {
    const at = [(i % columns + 0.5) / columns, (Math.floor(i / columns) + 0.5) / rows];
    const inside = tool === "circle" ? radius({ a, b: at }) <= far : at.every(between);
    return inside && Number.isFinite(value);
  });
}

function locate() {  // the cursor in the indices of the image file
  const [{ content }] = panels, at = state.cursor && pixelAt(state.cursor, content.shape);
  if (!at) return;
  const [turned, leftRight, upDown] = shown.flips, [rows, columns] = content.shape;
  const row = upDown ? rows - 1 - at[0] : at[0], column = leftRight ? columns - 1 - at[1] : at[1];
  const [x, y] = turned ? [row, column] : [column, row], sd = titled("Posterior sd");
  const [mean, spread] = [panels[0], sd].map((panel) =>
    panel ? digits(valuesOf(panel)[at[0] * columns + at[1]]) : "");
  find(".tools output", viewer).textContent = `x ${x}, y ${y}: ${mean}${sd ? ` ± ${spread}` : ""}`;
}

// ---- input

function listen(panel) {
  const { canvas } = panel;
  let drag = null;
  const place = ({ offsetX, offsetY }) => [
    (offsetX / canvas.clientWidth - 0.5) / state.zoom + state.centre[0],
    (offsetY / canvas.clientHeight - 0.5) / state.zoom + state.centre[1]];
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    const { kind } = panel.content;
    drag = { tool: find("[name=tool]:checked", viewer).value, event, place: place(event), kind,
      centre: state.centre, window: state.windows[kind] };
    if (!["window", "pan"].includes(drag.tool)) state.region = null;
    redraw();
  };
  canvas.onpointermove = (event) => {
    state.cursor = place(event);
    if (drag) move(event);
    redraw();
  };
  canvas.onpointerup = canvas.onpointercancel = () => { drag = null; };
  canvas.onpointerleave = () => { state.cursor = null; redraw(); };
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;  // the page scrolls
    event.preventDefault();
    zoom(1.2 ** -Math.sign(event.deltaY), place(event));
  }, { passive: false });
  function move(event) {
    const right = (event.clientX - drag.event.clientX) / canvas.clientWidth;
    const down = (event.clientY - drag.event.clientY) / canvas.clientHeight;
    if (drag.tool === "window") {
      const [low, high] = drag.window, half = (high - low) / 2 * 4 ** right;
      const level = (low + high) / 2 + down * (high - low);
      state.windows[drag.kind] = [level - half, level + half];
    } else if (drag.tool === "pan") {
      state.centre = [drag.centre[0] - right / state.zoom, drag.centre[1] - down / state.zoom];
    } else state.region = { tool: drag.tool, a: drag.place, b: place(event) };
  }
}

function zoom(factor, at = state.centre) {
  const next = limit(state.zoom * factor, 1, 40);
  state.centre = state.centre.map((c, i) => at[i] + (c - at[i]) * state.zoom / next);
  if (next === 1) state.centre = [0.5, 0.5];
  state.zoom = next;
  redraw();
}

const sizes = new ResizeObserver((entries) => {
  entries.forEach(({ target }) => {
    const ratio = Math.max(devicePixelRatio, 2);  // fine enough for print
    Object.assign(target, { width: target.clientWidth * ratio, height: target.clientHeight * ratio });
  });
  redraw();
});
findAll("[data-zoom]", viewer).forEach((button) => {
  button.onclick = () => zoom(Number(button.dataset.zoom));
});
find(".reset", viewer).onclick = reset;
findAll("[name=tool]", viewer).forEach((input) => {
  input.onchange = () => { viewer.dataset.tool = input.value; };
});

const frameSlider = find(".frames", viewer);
const count = (n) => `frame ${n} of ${frames.length}`;
slider(frameSlider, "frame", frames.length, count, (index) => show(frames[index]).catch((error) => {
  viewer.before(`The images cannot be shown: ${error}. Browsers since 2023 can.`);
}));
function jump(index) {
  const range = find("input", frameSlider);
  frameSlider.hidden = frames.length < 2;
  Object.assign(range, { max: frames.length, value: index + 1 });
  range.oninput();
}
const linked = () => /^#frame-(\d+)$/.exec(location.hash)?.[1];
addEventListener("hashchange", () => {
  if (linked() <= frames.length) { jump(linked() - 1); viewer.scrollIntoView(); }
});
if (frames.length) jump((linked() ?? 1) - 1);
