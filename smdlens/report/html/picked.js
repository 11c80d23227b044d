"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const GAP = NaN, SVG = "http://www.w3.org/2000/svg";
  const decoded = new Map();

  // Series are [ln low, ln high, base64 of uint16]; 0 is "not known".
  const series = (number) => {
    if (!decoded.has(number)) {
      const [low, high, text] = data.series[number];
      const bytes = atob(text), values = [];
      for (let i = 0; i < bytes.length; i += 2) {
        const code = bytes.charCodeAt(i) + 256 * bytes.charCodeAt(i + 1);
        values.push(code ? Math.exp(low + (high - low) * (code - 1) / 65534) : GAP);
      }
      decoded.set(number, values);
    }
    return decoded.get(number);
  };
  const middles = data.steps.slice(1).map((step, i) => (step + data.steps[i]) / 2);
  const short = (value) => {
    if (!Number.isFinite(value)) return "not known";
    const text = value.toPrecision(3);
    return text.includes("e") ? text.replace("e+", "e") : String(Number(text));
  };

  // Drawing -------------------------------------------------------------------------------------
  const node = (parent, tag, attributes, text) => {
    const made = parent.appendChild(document.createElementNS(SVG, tag));
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  // What belongs to an interval jumps at a cut of the learning rate; a norm goes on.
  const path = (xs, ys, jumps = true) => {
    let text = "", pen = "M";
    xs.forEach((x, i) => {
      if (Number.isFinite(ys[i])) { text += `${pen}${x.toFixed(1)} ${ys[i].toFixed(1)}`; pen = "L"; } else pen = "M";
      if (jumps && data.cuts.some((cut) => middles[i] < cut && cut < middles[i + 1])) pen = "M";
    });
    return text;
  };
  const LEFT = 62, RIGHT = 12, HEIGHT = 210, SPACE = 34;
  let picked = null, scaleX = null;

  const logTicks = (low, high) => {
    const found = [], wide = high / low > 30;
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
      for (const digit of wide ? [1] : [1, 1.5, 2, 3, 5, 7]) {
        const value = digit * 10 ** power;
        if (value >= low && value <= high) found.push(value);
      }
    }
    return found;
  };
  const linearTicks = (low, high, most) => {
    const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
    const size = [1, 2, 5, 10].map((d) => d * power).find((s) => s >= rough) || 1;
    const found = [];
    for (let value = Math.ceil(low / size) * size; value <= high; value += size) found.push(value);
    return found;
  };

  const panel = (svg, top, width, title, all) => {
    const finite = all.flat().filter((value) => Number.isFinite(value) && value > 0);
    const low = Math.min(...finite) / 1.08, high = Math.max(...finite) * 1.08;
    const y = (value) => top + HEIGHT * (1 - Math.log(value / low) / Math.log(high / low));
    data.stages.forEach(([from, to], i) => {
      if (i % 2) node(svg, "rect", { class: "shade", x: scaleX(from), y: top, width: scaleX(to) - scaleX(from), height: HEIGHT });
    });
    for (const cut of data.cuts) node(svg, "path", { class: "cut", d: `M${scaleX(cut)} ${top}v${HEIGHT}` });
    node(svg, "path", { class: "axis", d: `M${LEFT} ${top}v${HEIGHT}H${width - RIGHT}` });
    if (finite.length) {
      for (const value of logTicks(low, high)) node(svg, "text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, short(value));
    }
    node(svg, "text", { x: LEFT, y: top - 8 }, title);
    return y;
  };

  const draw = () => {
    const box = $("drawing"), width = Math.max(300, box.clientWidth);
    const total = 2 * (HEIGHT + SPACE) + 22, first = data.steps[0], last = data.steps[data.steps.length - 1];
    scaleX = (step) => LEFT + (width - LEFT - RIGHT) * (step - first) / (last - first || 1);
    const get = (key) => series(data.tensors[picked][key]);
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${width} ${total}`);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `${data.tensors[picked].name}: angle per update and weight norm against theory`);
    const xs = middles.map(scaleX), ends = data.steps.map(scaleX);
    const angles = ["angle", "low", "high", "expected", "relaxed", "p05", "p95"].map(get);
    const [angle, low, high, expected, relaxed, p05, p95] = angles;
    let y = panel(svg, SPACE - 10, width, "angle per update (rad)", angles);
    const bands = [];
    xs.forEach((x, i) => {
      if (p05[i] > 0 && p95[i] > 0) bands.push(`M${ends[i].toFixed(1)} ${y(p05[i]).toFixed(1)}V${y(p95[i]).toFixed(1)}H${ends[i + 1].toFixed(1)}V${y(p05[i]).toFixed(1)}z`);
    });
    node(svg, "path", { class: "spread", d: bands.join("") });
    const bars = xs.map((x, i) => low[i] > 0 && high[i] > 0 ? `M${x.toFixed(1)} ${y(low[i]).toFixed(1)}V${y(high[i]).toFixed(1)}` : "");
    node(svg, "path", { class: "interval", d: bars.join("") });
    let steady = "", level = "";
    xs.forEach((x, i) => {
      const at = expected[i] > 0 ? y(expected[i]).toFixed(1) : "";
      if (at) steady += `${at === level ? "" : `M${ends[i].toFixed(1)} ${at}`}H${ends[i + 1].toFixed(1)}`;
      level = at;
    });
    node(svg, "path", { class: "line expected", d: steady });
    node(svg, "path", { class: "line relaxed", d: path(xs, relaxed.map(y)) });
    node(svg, "path", { class: "line measured", d: path(xs, angle.map(y)) });
    const norms = ["norm", "expectedNorm", "relaxedNorm"].map(get);
    const top = 2 * SPACE + HEIGHT;
    y = panel(svg, top, width, "weight norm", norms);
    node(svg, "path", { class: "line expected", d: path(xs, norms[1].map(y)) });
    node(svg, "path", { class: "line relaxed", d: path(xs, norms[2].map(y)) });
    node(svg, "path", { class: "line measured", d: path(ends, norms[0].map(y), false) });
    for (const tick of linearTicks(first, last, width / 110)) node(svg, "text", { x: scaleX(tick), y: top + HEIGHT + 18, "text-anchor": scaleX(tick) > width - 36 ? "end" : "middle" }, tick.toLocaleString("en"));
    node(svg, "path", { class: "cursor", id: "line", d: "" });
    svg.addEventListener("pointermove", (event) => {
      const at = first + (event.offsetX * width / svg.clientWidth - LEFT) / (width - LEFT - RIGHT) * (last - first);
      $("cursor").value = data.steps.findLastIndex((step) => step <= at);
      read();
    });
    box.replaceChildren(svg);
    read();
  };

  const read = () => {
    const i = Number($("cursor").value), tensor = data.tensors[picked], at = (key) => series(tensor[key])[i];
    $("line").setAttribute("d", `M${scaleX(middles[i])} ${SPACE - 10}V${2 * SPACE + 2 * HEIGHT}`);
    const range = `${data.axis} ${data.steps[i].toLocaleString("en")}–${data.steps[i + 1].toLocaleString("en")}`;
    const ratio = at("angle") / at("expected");
    $("cursor").setAttribute("aria-valuetext", range);
    $("reading").textContent = `${range}: angle per update ${short(at("angle"))} rad (${short(at("low"))} to ${short(at("high"))}), ` +
      `equilibrium ${short(at("expected"))}, ratio ${short(ratio)}; norm ${short(at("norm"))}, equilibrium norm ${short(at("expectedNorm"))}.`;
  };

  const pick = (number) => {
    picked = number;
    $("tensor").value = String(number);
    for (const row of rows) row.classList.toggle("picked", row.dataset.draw === String(number));
    draw();
  };

  // Table ---------------------------------------------------------------------------------------
  const table = $("tensors"), body = table.tBodies[0], rows = [...body.rows];
  const value = (row, column) => row.cells[column].dataset.order ?? row.cells[column].textContent.trim();
  const sort = (heading, column) => {
    const down = heading.ariaSort === "ascending";
    for (const other of heading.parentNode.cells) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const numeric = "order" in (rows[0]?.cells[column].dataset ?? {});
    const compare = numeric ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en", { numeric: true });
    const sorted = [...rows].sort((one, two) => {
      const [a, b] = [value(one, column), value(two, column)];
      if (!a || !b) return a ? -1 : b ? 1 : 0;
      return down ? compare(b, a) : compare(a, b);
    });
    body.append(...sorted);
  };
  const filter = () => {
    const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    $("count").textContent = `${shown} of ${rows.length}`;
  };
  const button = (cell, run, className) => {
    const made = document.createElement("button");
    made.type = "button";
    made.className = className;
    made.append(...cell.childNodes);
    made.addEventListener("click", run);
    cell.append(made);
  };
  [...table.tHead.rows[0].cells].forEach((heading, column) => button(heading, () => sort(heading, column), ""));
  $("filter").addEventListener("input", filter);
  filter();

  // Picking -------------------------------------------------------------------------------------
  if (!$("picked")) return;
  for (const row of rows.filter((each) => each.dataset.draw)) {
    const number = Number(row.dataset.draw);
    $("tensor").add(new Option(data.tensors[number].name, String(number)));
    button(row.cells[0].firstElementChild, () => { pick(number); $("picked").scrollIntoView({ block: "start" }); $("tensor").focus({ preventScroll: true }); }, "pick");
  }
  $("cursor").max = String(middles.length - 1);
  $("cursor").value = $("cursor").max;
  $("cursor").addEventListener("input", read);
  $("tensor").addEventListener("change", () => pick(Number($("tensor").value)));
  $("worst").open = false;
  window.addEventListener("beforeprint", () => { $("worst").open = true; });
  window.addEventListener("resize", draw);
  pick(Number($("tensor").options[0].value));
})();
