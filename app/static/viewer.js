// Several versions of one picture: two of them under a line that one drags, and the same detail of each side by side.
const DETAIL = 64; // pixels of the source across a detail
const SHAPES = [0.5, 4]; // width by height of the stage; longer pictures have room beside them, and begin zoomed
const THIN = 64; // pixels of the page that the short side of a picture has at first
const LARGE = 8; // pixels of the page across one of the source: to see more, press a zoom
// `home` is the zoom to begin with; null until the stage has a size.
let left = 0, right = 1, cut = 0.5, zoom = 1, home = null, focus = [0.5, 0.5], begin = focus, drag = null, series = null;
const versions = () => (props.value && props.value.versions) || [];

const draw = () => {
  const value = props.value || {}, all = versions(), box = find(".viewer");
  if (!all.length) { box.innerHTML = value.empty || ""; return; }
  const solo = all.length === 1, same = value.series && value.series === series; // another state of the same thing
  series = value.series;
  if (!same) {
    left = 0; right = Math.min(value.right ?? 1, all.length - 1); cut = value.cut ?? 0.5; home = null; focus = begin = value.focus || [0.42, 0.32];
    if (solo) { right = 0; cut = 0; }
  }
  const options = (chosen) => all.map((v, i) => `<option value="${i}" ${i === chosen ? "selected" : ""}>${esc(v.label)}</option>`).join("");
  box.innerHTML = `
    <div class="toolbar">
      ${solo ? "" : `<label>Left <select class="left">${options(left)}</select></label>
      <label>Right <select class="right">${options(right)}</select></label>`}
      <span class="zooms" role="group" aria-label="Zoom"></span>
    </div>
    <div class="stage ${solo ? "solo" : ""}" tabindex="0" role="application" aria-label="${solo ? "The picture" : "The two versions"}. Arrow keys move the detail, plus and minus zoom, Home resets." style="--wide:${value.width}px;--shape:${clamp(value.width / value.height, ...SHAPES)}">
      <img class="under" alt="" draggable="false"><img class="over" alt="" draggable="false">
      <span class="tag a"></span><span class="tag b"></span>
      <div class="cut" role="slider" tabindex="0" aria-label="Where the two versions meet" aria-valuemin="0" aria-valuemax="100"><i></i></div>
      <div class="ring"></div>
    </div>
    <p class="hint">${solo ? "Click a detail, then zoom." : "Drag the line. Click a detail to see it in every version below; zoomed in, drag the picture."} <span class="keys">Keys: arrows, + and −; Home resets.</span></p>
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
  const room = fit();
  if (!room) return; // not seen yet
  if (home === null) { home = first(room.scale); zoom = home; }
  if (find(".zooms").dataset.home !== String(home)) {
    find(".zooms").dataset.home = home;
    find(".zooms").innerHTML = zooms().map((z) => `<button type="button" data-zoom="${z}">${z}×</button>`).join("");
  }
  const [x, y] = centre(), wide = zoom * room.wide, high = zoom * room.high;
  const move = `translate(${100 * (0.5 / room.wide - zoom * x)}%, ${100 * (0.5 / room.high - zoom * y)}%) scale(${zoom})`;
  const edge = 100 * (x + (cut - 0.5) / wide);
  [under, over].forEach((image) => {
    Object.assign(image.style, { width: `${100 * room.wide}%`, height: `${100 * room.high}%`, transform: move, imageRendering: zoom * room.scale > 2 ? "pixelated" : "auto" });
  });
  over.style.clipPath = `inset(0 ${100 - edge}% 0 0)`;
  under.style.clipPath = `inset(0 0 0 ${edge}%)`;
  const handle = find(".cut"); handle.style.left = `${100 * cut}%`; handle.setAttribute("aria-valuenow", Math.round(100 * cut));
  find(".tag.a").textContent = all[left].label; find(".tag.b").textContent = all[right].label;
  const span = detail(), ring = find(".ring"), [fx, fy] = shownFocus();
  ring.style.left = `${100 * ((fx - x) * wide + 0.5)}%`; ring.style.top = `${100 * ((fy - y) * high + 0.5)}%`;
  ring.style.width = `${100 * span * wide / width}%`;
  findAll(".detail").forEach((d) => {
    d.style.backgroundSize = `${100 * width / span}% ${100 * height / span}%`;
    const along = (f, n) => (n <= span ? 50 : 100 * (f * n - span / 2) / (n - span));
    d.style.backgroundPosition = `${along(fx, width)}% ${along(fy, height)}%`;
  });
  find(".stage").style.touchAction = zoom > 1 ? "pinch-zoom" : "pan-y"; // zoomed in, a finger drags the picture
  findAll("[data-zoom]").forEach((b) => b.setAttribute("aria-pressed", +b.dataset.zoom === zoom));
  element.dataset.cut = cut.toFixed(3);
};
// The picture in the stage at zoom 1: its share of the width and of the height, and pixels of the page per pixel of it.
const fit = () => {
  const { clientWidth: W, clientHeight: H } = find(".stage"), { width, height } = props.value, scale = Math.min(W / width, H / height);
  return scale > 0 ? { wide: (scale * width) / W, high: (scale * height) / H, scale } : null;
};
const first = (scale) => {
  const thin = Math.min(props.value.width, props.value.height) * scale;
  let z = 1;
  while (z * thin < THIN && 2 * z * scale <= LARGE) z *= 2;
  return z;
};
const zooms = () => (home > 1 ? [1, home, 2 * home, 4 * home] : [1, 2, 4, 8]);
const detail = () => Math.min(DETAIL, Math.max(props.value.width, props.value.height));
const within = (f, half) => (half < 0.5 ? clamp(f, half, 1 - half) : 0.5);
const centre = () => { const { wide, high } = fit(); return [within(focus[0], 0.5 / zoom / wide), within(focus[1], 0.5 / zoom / high)]; };
const shownFocus = () => { const half = detail() / 2; return [within(focus[0], half / props.value.width), within(focus[1], half / props.value.height)]; };
const spot = (e) => { const r = find(".stage").getBoundingClientRect(); return [(e.clientX - r.left) / r.width, (e.clientY - r.top) / r.height]; };
const look = (x, y) => { focus = [clamp(x, 0, 1), clamp(y, 0, 1)]; place(); };
on("pointerdown", ".stage", (stage, e) => {
  if (e.button) return;
  e.preventDefault(); stage.setPointerCapture(e.pointerId);
  const here = spot(e), onCut = e.target.closest(".cut") !== null;
  drag = { onCut, from: here, focus: centre(), moved: false };
  (onCut ? find(".cut") : stage).focus({ preventScroll: true });
});
on("pointermove", ".stage", (stage, e) => {
  if (!drag) return;
  const [x, y] = spot(e), [x0, y0] = drag.from;
  if (Math.hypot(x - x0, y - y0) > 0.01) drag.moved = true;
  if (!drag.moved) return;
  if ((drag.onCut || zoom === 1) && versions().length > 1) { cut = clamp(x, 0, 1); place(); }
  else look(drag.focus[0] - (x - x0) / zoom / fit().wide, drag.focus[1] - (y - y0) / zoom / fit().high);
});
on("pointerup", ".stage", (stage, e) => {
  if (drag && !drag.moved && !drag.onCut) {
    const [x, y] = spot(e), [cx, cy] = centre();
    look(cx + (x - 0.5) / zoom / fit().wide, cy + (y - 0.5) / zoom / fit().high);
  }
  drag = null;
});
on("pointercancel", ".stage", () => (drag = null));
on("keydown", ".cut", (c, e) => {
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  const step = { ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1 }[e.key];
  if (step) { e.preventDefault(); cut = clamp(cut + step, 0, 1); place(); }
});
on("keydown", ".stage", (stage, e) => {
  if (e.target !== stage || e.ctrlKey || e.metaKey || e.altKey) return;
  const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
  const closer = { "+": 1, "=": 1, "-": -1, _: -1 }[e.key];
  if (arrow) {
    const [x, y] = shownFocus(), { wide, high } = fit(); // a step is a sixteenth of what is seen
    look(x + arrow[0] * Math.min(1, 1 / zoom / wide) / 16, y + arrow[1] * Math.min(1, 1 / zoom / high) / 16);
  } else if (closer) {
    const all = zooms();
    zoom = all[clamp(all.indexOf(zoom) + closer, 0, all.length - 1)]; place();
  } else if (e.key === "Home" || e.key === "Escape") { zoom = home; look(...begin); }
  else return;
  e.preventDefault();
});
on("change", ".left", (s) => { left = +s.value; place(); });
on("change", ".right", (s) => { right = +s.value; place(); });
on("click", "[data-zoom]", (b) => { zoom = +b.dataset.zoom; place(); });
on("click", ".detail", (b) => { right = +b.dataset.detail; find("select.right").value = right; place(); });
on("click", ".submit", () => trigger("submit", { ratings: ratings() }));
new ResizeObserver(() => find(".stage") && place()).observe(element);
show(draw);
