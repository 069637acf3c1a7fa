// Rate against quality, drawn to the width there is. Points are buttons.
const NS = "http://www.w3.org/2000/svg";
const nice = (low, high, count) => {
  const raw = (high - low || 1) / count, power = Math.pow(10, Math.floor(Math.log10(raw)));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const ticks = []; for (let t = Math.ceil(low / step) * step; t <= high + step / 1e6; t += step) ticks.push(+t.toPrecision(10));
  return ticks;
};
const draw = () => {
  const value = props.value || {}, box = find(".chart"), series = value.series || [];
  const points = series.flatMap((s) => s.points);
  if (!points.length) { box.innerHTML = value.empty || ""; return; }
  const W = Math.max(box.clientWidth, 280), H = clamp(W * 0.55, 240, 420), m = { l: 52, r: 16, t: 14, b: 44 };
  const pad = (low, high, p) => [low - (high - low || 1) * p, high + (high - low || 1) * p];
  const [x0, x1] = pad(Math.min(...points.map((p) => p.x)), Math.max(...points.map((p) => p.x)), 0.08);
  const [y0, y1] = pad(Math.min(...points.map((p) => p.y)), Math.max(...points.map((p) => p.y)), 0.12);
  const X = (x) => m.l + ((x - x0) / (x1 - x0)) * (W - m.l - m.r), Y = (y) => H - m.b - ((y - y0) / (y1 - y0)) * (H - m.t - m.b);
  const marks = ["M-6,0a6,6 0 1,0 12,0a6,6 0 1,0 -12,0", "M-5.5,-5.5h11v11h-11z", "M0,-7.5L7.5,0L0,7.5L-7.5,0z", "M0,-7L6.8,5H-6.8z", "M0,7L6.8,-5H-6.8z"];
  const taken = []; // left, right, top and bottom of each label
  const free = ({ x, y, size }) => {
    const half = 3.4 * size.length + 3, box = [X(x) - half, X(x) + half, Y(y) - 25, Y(y) - 10];
    if (taken.some((b) => b[0] < box[1] && box[0] < b[1] && b[2] < box[3] && box[2] < b[3])) return false;
    taken.push(box); return true;
  };
  const grid = nice(x0, x1, W < 480 ? 4 : 7).map((t) => `<line x1="${X(t)}" x2="${X(t)}" y1="${m.t}" y2="${H - m.b}"/><text x="${X(t)}" y="${H - m.b + 18}" text-anchor="middle">${t}</text>`)
    .concat(nice(y0, y1, 5).map((t) => `<line x1="${m.l}" x2="${W - m.r}" y1="${Y(t)}" y2="${Y(t)}"/><text x="${m.l - 8}" y="${Y(t) + 4}" text-anchor="end">${t}</text>`));
  const curves = series.map((s, n) => {
    const sorted = [...s.points].sort((a, b) => a.x - b.x);
    sorted.forEach((p) => (p.named = p.size && (n === 0 || W >= 480) && free(p)));
    return `<g style="color:${esc(s.tone)}"><polyline class="${s.dashed ? "dashed" : ""}" points="${sorted.map((p) => `${X(p.x)},${Y(p.y)}`).join(" ")}"/>${s.points.map((p) =>
      `<g class="point" role="button" tabindex="0" data-row="${p.row}" transform="translate(${X(p.x)},${Y(p.y)})" aria-label="${esc(p.label)}" data-tip="${esc(p.label)}"><circle r="${W < 480 ? 11 : 16}" class="reach"/><path d="${marks[n % marks.length]}"/>${p.named ? `<text y="-13" text-anchor="middle">${esc(p.size)}</text>` : ""}</g>`).join("")}</g>`;
  });
  box.innerHTML = `<svg xmlns="${NS}" width="${W}" height="${H}" role="group" aria-label="${esc(value.y_label)} against ${esc(value.x_label)}"><g class="grid">${grid.join("")}</g>
    <text class="axis" x="${(m.l + W - m.r) / 2}" y="${H - 6}" text-anchor="middle">${esc(value.x_label)}</text>
    <text class="axis" transform="translate(13,${(m.t + H - m.b) / 2}) rotate(-90)" text-anchor="middle">${esc(value.y_label)}</text>${curves.join("")}</svg>
    <div class="legend">${series.map((s, n) => `<span style="color:${esc(s.tone)}"><svg viewBox="-9 -9 18 18" aria-hidden="true"><path d="${marks[n % marks.length]}"/></svg><b>${esc(s.name)}</b></span>`).join("")}</div>`;
};
const choose = (point) => {
  findAll(".point").forEach((p) => p.classList.toggle("chosen", p === point));
  trigger("select", { row: +point.dataset.row });
};
on("click", ".point", choose);
on("keydown", ".point", (p, e) => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); choose(p); } });
new ResizeObserver(() => { const box = find(".chart"), svg = box.querySelector(":scope > svg"); if (svg && Math.abs(svg.clientWidth - box.clientWidth) > 2) draw(); }).observe(element);
show(draw);
