// The tokens of a file, one square each, coloured by index. Clicking chooses a spot.
let place = null, url = null; // the spot, and the map that is drawn
const draw = () => {
  const value = props.value || {}, box = find(".map"), same = value.url === url;
  place = value.spot || null; url = value.url;
  if (!url) { box.innerHTML = value.empty || ""; return; }
  if (same) { mark(); return; } // the spot has another size
  box.innerHTML = `
    <div class="pair ${value.picture ? "" : "strip"}">
      <div class="field" tabindex="0" role="application" aria-label="Token map, ${value.rows} rows of ${value.columns}. Arrow keys move the spot." style="${value.picture ? `aspect-ratio:${value.columns / value.rows}` : `height:${clamp(16 * value.rows, 56, 480)}px`}">
        <img src="${esc(value.url)}" alt="Token map" draggable="false"></div>
      ${value.picture ? `<div class="field plain" style="aspect-ratio:${value.columns / value.rows}"><img src="${esc(value.picture)}" alt="The decoded picture" draggable="false"></div>` : ""}
    </div>
    <div class="readout"><span class="scale" aria-hidden="true"></span><span>0</span><span class="far">${(value.num_codes - 1).toLocaleString()}</span><output class="hover">${esc(value.caption || "")}</output></div>`;
  mark();
};
// The first and the last of `count` unit squares around a centre, of `most` that there are; app/media.py changes the same ones.
const near = (centre, count, most) => { const first = Math.ceil(centre - (count + 1) / 2); return [Math.max(first, 0), Math.min(first + count, most) - 1]; };
// The spot as boxes: a square of a picture; of speech a stretch, which goes on in the next row.
const boxes = () => {
  const { rows, columns, picture, side = 1 } = props.value, at = place.x * columns;
  if (picture) { const [top, bottom] = near(place.y * rows, side, rows), [left, right] = near(at, side, columns); return [[left, right, top, bottom]]; }
  const [first, last] = near(Math.floor(place.y * rows) * columns + at, side, props.value.positions), found = [];
  for (let row = Math.floor(first / columns); row <= Math.floor(last / columns); row++)
    found.push([Math.max(first - row * columns, 0), Math.min(last - row * columns, columns - 1), row, row]);
  return found;
};
const mark = () => {
  const { rows, columns } = props.value;
  findAll(".spot").forEach((s) => s.remove());
  if (place) findAll(".field").forEach((field) => boxes().forEach(([left, right, top, bottom]) => {
    const box = document.createElement("i"); box.className = "spot";
    Object.assign(box.style, { left: `${100 * left / columns}%`, width: `${100 * (right - left + 1) / columns}%`, top: `${100 * top / rows}%`, height: `${100 * (bottom - top + 1) / rows}%` });
    field.append(box);
  }));
};
const spot = (field, e) => { const r = field.getBoundingClientRect(); return { x: clamp((e.clientX - r.left) / r.width, 0, 0.9999), y: clamp((e.clientY - r.top) / r.height, 0, 0.9999) }; };
const read = (p) => {
  const value = props.value, row = Math.floor(p.y * value.rows), column = Math.floor(p.x * value.columns), index = value.indices?.[row * value.columns + column];
  if (index === undefined || index < 0) return;
  const where = value.picture ? `row ${row + 1}, column ${column + 1}` : `at ${((row * value.columns + column) / value.per_second).toFixed(2)} s`;
  find(".hover").textContent = `Token ${index.toLocaleString()}, ${where}`;
};
const choose = () => {
  const value = props.value, row = Math.floor(place.y * value.rows), column = Math.floor(place.x * value.columns);
  mark(); read(place);
  find(".map").dataset.spot = JSON.stringify({ ...place, index: value.indices?.[row * value.columns + column] }); // app/tabs/inspect.py reads it
  trigger("select");
};
on("pointermove", ".field", (f, e) => read(spot(f, e)));
on("click", ".field", (f, e) => { place = spot(f, e); choose(); });
on("keydown", ".field", (f, e) => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
  if (!step || e.ctrlKey || e.metaKey || e.altKey) return;
  e.preventDefault(); place = place || { x: 0.5, y: 0.5 };
  place = { x: clamp(place.x + step[0] / props.value.columns, 0, 0.9999), y: clamp(place.y + step[1] / props.value.rows, 0, 0.9999) };
  choose();
});
show(draw);
