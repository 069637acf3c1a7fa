// Several versions of one picture: two of them under a line that one drags, and the same detail of each side by side.
const DETAIL = 64; // pixels of the source across a detail
let left = 0, right = 1, cut = 0.5, zoom = 1, focus = [0.5, 0.5], drag = null, series = null;
const versions = () => (props.value && props.value.versions) || [];

const draw = () => {
  const value = props.value || {}, all = versions(), box = find(".viewer");
  if (!all.length) { box.innerHTML = value.empty || ""; return; }
  const solo = all.length === 1, same = value.series && value.series === series; // another state of the same thing
  series = value.series;
  if (!same) {
    left = 0; right = Math.min(value.right ?? 1, all.length - 1); cut = value.cut ?? 0.5; zoom = 1; focus = value.focus || [0.42, 0.32];
    if (solo) { right = 0; cut = 0; }
  }
  const options = (chosen) => all.map((v, i) => `<option value="${i}" ${i === chosen ? "selected" : ""}>${esc(v.label)}</option>`).join("");
  box.innerHTML = `
    <div class="toolbar">
      ${solo ? "" : `<label>Left <select class="left">${options(left)}</select></label>
      <label>Right <select class="right">${options(right)}</select></label>`}
      <span class="zooms" role="group" aria-label="Zoom">${[1, 2, 4, 8].map((z) => `<button type="button" data-zoom="${z}" aria-pressed="${z === 1}">${z}×</button>`).join("")}</span>
    </div>
    <div class="stage ${solo ? "solo" : ""}" style="aspect-ratio:${value.width}/${value.height};--wide:${value.width}px;--shape:${value.width / value.height}">
      <img class="under" alt="" draggable="false"><img class="over" alt="" draggable="false">
      <span class="tag a"></span><span class="tag b"></span>
      <div class="cut" role="slider" tabindex="0" aria-label="Where the two versions meet" aria-valuemin="0" aria-valuemax="100"><i></i></div>
      <div class="ring"></div>
    </div>
    <p class="hint">${solo ? "Click a detail, then zoom." : "Drag the line. Click a detail to see it in every version below; zoomed in, drag the picture."}</p>
    <div class="details" ${solo ? "hidden" : ""}>${all.map((v, i) => `
      <figure style="--tone:${esc(v.tone || "var(--ink-soft)")}"><button type="button" class="detail" data-detail="${i}" aria-label="Show ${esc(v.label)} on the right"></button>
      <figcaption><b>${esc(v.label)}</b><span>${esc(v.note || "")}</span></figcaption>${v.rate ? rateRow(v) : ""}</figure>`).join("")}</div>
    ${value.rate ? `<button type="button" class="primary submit">Show which was which</button>` : ""}`;
  findAll(".detail").forEach((d, i) => (d.style.backgroundImage = `url("${all[i].url}")`));
  place();
};

const place = () => {
  const all = versions(), { width, height } = props.value, under = find(".under"), over = find(".over");
  if (under.getAttribute("src") !== all[right].url) under.src = all[right].url;
  if (over.getAttribute("src") !== all[left].url) over.src = all[left].url;
  under.alt = all[right].label; over.alt = all[left].label;
  const half = 0.5 / zoom, x = clamp(focus[0], half, 1 - half), y = clamp(focus[1], half, 1 - half);
  const move = `translate(${50 - 100 * zoom * x}%, ${50 - 100 * zoom * y}%) scale(${zoom})`;
  const edge = 100 * (x + (cut - 0.5) / zoom);
  [under, over].forEach((image) => { image.style.transform = move; image.style.imageRendering = zoom > 2 ? "pixelated" : "auto"; });
  over.style.clipPath = `inset(0 ${100 - edge}% 0 0)`;
  under.style.clipPath = `inset(0 0 0 ${edge}%)`;
  const handle = find(".cut"); handle.style.left = `${100 * cut}%`; handle.setAttribute("aria-valuenow", Math.round(100 * cut));
  find(".tag.a").textContent = all[left].label; find(".tag.b").textContent = all[right].label;
  const span = Math.min(DETAIL, width, height), ring = find(".ring");
  const fx = clamp(focus[0], span / 2 / width, 1 - span / 2 / width), fy = clamp(focus[1], span / 2 / height, 1 - span / 2 / height);
  ring.style.left = `${100 * ((fx - x) * zoom + 0.5)}%`; ring.style.top = `${100 * ((fy - y) * zoom + 0.5)}%`;
  ring.style.width = `${100 * span * zoom / width}%`;
  findAll(".detail").forEach((d) => {
    d.style.backgroundSize = `${100 * width / span}% ${100 * height / span}%`;
    const along = (f, n) => (n === span ? 0 : 100 * (f * n - span / 2) / (n - span));
    d.style.backgroundPosition = `${along(fx, width)}% ${along(fy, height)}%`;
  });
  findAll("[data-zoom]").forEach((b) => b.setAttribute("aria-pressed", +b.dataset.zoom === zoom));
  element.dataset.cut = cut.toFixed(3);
};
const spot = (e) => { const r = find(".stage").getBoundingClientRect(); return [(e.clientX - r.left) / r.width, (e.clientY - r.top) / r.height]; };
const centre = () => { const half = 0.5 / zoom; return focus.map((f) => clamp(f, half, 1 - half)); };
on("pointerdown", ".stage", (stage, e) => {
  if (e.button) return;
  e.preventDefault(); stage.setPointerCapture(e.pointerId);
  const here = spot(e), onCut = e.target.closest(".cut") !== null;
  drag = { onCut, from: here, focus: centre(), moved: false };
  if (onCut) find(".cut").focus();
});
on("pointermove", ".stage", (stage, e) => {
  if (!drag) return;
  const [x, y] = spot(e), [x0, y0] = drag.from;
  if (Math.hypot(x - x0, y - y0) > 0.01) drag.moved = true;
  if (!drag.moved) return;
  if ((drag.onCut || zoom === 1) && versions().length > 1) cut = clamp(x, 0, 1);
  else focus = [drag.focus[0] - (x - x0) / zoom, drag.focus[1] - (y - y0) / zoom].map((f) => clamp(f, 0, 1));
  place();
});
on("pointerup", ".stage", (stage, e) => {
  if (drag && !drag.moved && !drag.onCut) {
    const [x, y] = spot(e), [cx, cy] = centre();
    focus = [cx + (x - 0.5) / zoom, cy + (y - 0.5) / zoom].map((f) => clamp(f, 0, 1));
    place();
  }
  drag = null;
});
on("pointercancel", ".stage", () => (drag = null));
on("keydown", ".cut", (c, e) => {
  const step = { ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1 }[e.key];
  if (step) { e.preventDefault(); cut = clamp(cut + step, 0, 1); place(); }
});
on("change", ".left", (s) => { left = +s.value; place(); });
on("change", ".right", (s) => { right = +s.value; place(); });
on("click", "[data-zoom]", (b) => { zoom = +b.dataset.zoom; place(); });
on("click", ".detail", (b) => { right = +b.dataset.detail; find("select.right").value = right; place(); });
on("click", ".submit", () => trigger("submit", { ratings: ratings() }));
show(draw);
