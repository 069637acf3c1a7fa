// Several versions of one recording on one clock: all play together, one is heard. Switching is seamless.
// `wanted` is the start that is to play, loading or playing; null while it is stopped. Whatever starts later takes its place.
let context = null, buffers = null, sources = [], gains = [], heard = 0, wanted = null, playing = false, begun = 0, at = 0, length = 0, frame = 0, series = null;
const versions = () => (props.value && props.value.versions) || [];
const level = (i) => (i === heard ? Math.pow(10, (find(".equal input")?.checked ? versions()[i].gain || 0 : 0) / 20) : 0);

const wave = (peaks) => {
  const n = Math.max(peaks.length, 1), x = (i) => ((i + 0.5) / n * 1000).toFixed(1), y = (v) => (50 - 48 * clamp(v, -1, 1)).toFixed(1);
  const top = peaks.map((p, i) => `${x(i)},${y(p[1])}`), low = peaks.map((p, i) => `${x(i)},${y(p[0])}`).reverse();
  return `<svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true"><polygon points="${top.concat(low).join(" ")}"/></svg>`;
};

const lane = (v, i) => `
  <div class="lane" style="--tone:${esc(v.tone || "var(--ink-soft)")}">
    <button type="button" class="pick" role="radio" aria-checked="${i === heard}" tabindex="${i === heard ? 0 : -1}" data-lane="${i}">
      <kbd>${i < 9 ? i + 1 : ""}</kbd><span class="name">${esc(v.label)}</span><span class="note">${esc(v.note || "")}</span>
    </button>
    ${v.peaks ? `<div class="trace" data-lane="${i}"><div class="wave">${wave(v.peaks)}</div>
      ${v.spectrogram ? `<img class="spec" src="${esc(v.spectrogram)}" alt="Spectrogram of ${esc(v.label)}, 0 to 8 kHz">` : ""}<i class="head"></i></div>` : ""}
    ${v.rate ? rateRow(v) : ""}
  </div>`;

const draw = () => {
  const value = props.value || {}, all = versions(), box = find(".listener");
  const same = value.series && value.series === series, resume = same && wanted; // another state of the same thing
  stop(); buffers = null; series = value.series;
  if (!same) { at = 0; heard = Math.min(value.heard ?? 0, Math.max(all.length - 1, 0)); }
  if (!all.length) { box.innerHTML = value.empty || ""; return; }
  length = value.duration;
  const spectra = all.some((v) => v.spectrogram), gain = all.some((v) => v.gain);
  box.innerHTML = `
    <div class="transport">
      <button type="button" class="play" aria-label="Play">▶</button>
      <input type="range" class="seek" min="0" max="1000" value="0" aria-label="Position" aria-valuetext="${clock(0)}">
      <span class="time" aria-live="off">0:00.0 / ${clock(length)}</span>
    </div>
    <p class="problem" role="alert"></p>
    <div class="switches">
      <label><input type="checkbox" class="loop" checked> Repeat</label>
      ${gain ? `<label class="equal" data-tip="Louder always sounds better. This turns each version down to the quietest, while it plays; files stay as they are."><input type="checkbox" checked> Equal loudness</label>` : ""}
      ${spectra ? `<label><input type="checkbox" class="spectra"> Spectrogram</label>` : ""}
      <span class="hint">Space plays, 1–${Math.min(9, all.length)} switches, arrows move</span>
    </div>
    <div class="lanes" role="radiogroup" aria-label="The version you hear">${all.map(lane).join("")}</div>
    ${value.rate ? `<button type="button" class="primary submit">Show which was which</button>` : ""}
    <p class="gains">${gain && !value.quiet ? "Turned down while playing: " + all.filter((v) => v.gain).map((v) => `${esc(v.label)} ${v.gain.toFixed(1)} dB`).join(", ") : ""}</p>`;
  if (same) place();
  if (resume) start();
};

const load = async (v) => {
  const answer = await fetch(v.url).catch(() => null);
  if (!answer) throw new Error("The server does not answer. Is it still running?");
  if (!answer.ok) throw new Error("These files were deleted after a while. Start again.");
  try { return await context.decodeAudioData(await answer.arrayBuffer()); } catch {
    throw new Error(`This browser cannot play ${v.label}: its sample rate may be too low or too high. Download the files to hear them.`);
  }
};

const start = async () => {
  const mine = (wanted = {});
  find(".problem").textContent = "";
  document.dispatchEvent(new CustomEvent("codec-play", { detail: element }));
  context = context || new (window.AudioContext || window.webkitAudioContext)();
  await context.resume();
  element.dataset.state = "loading";
  const ready = (buffers = buffers || Promise.all(versions().map(load)));
  const loaded = await ready.catch((error) => {
    if (buffers === ready) buffers = null;
    if (wanted === mine) { stop(); find(".problem").textContent = error.message; }
  });
  if (wanted !== mine) return;
  length = Math.max(...loaded.map((b) => b.duration));
  if (at >= length - 0.02) at = 0;
  sources = loaded.map((buffer, i) => {
    const source = context.createBufferSource(), gain = context.createGain();
    source.buffer = buffer; gain.gain.value = level(i);
    source.connect(gain).connect(context.destination);
    gains[i] = gain; source.start(0, at);
    return source;
  });
  begun = context.currentTime - at; playing = true; element.dataset.state = "playing";
  const button = find(".play"); button.textContent = "❚❚"; button.setAttribute("aria-label", "Pause");
  tick();
};
const stop = () => {
  cancelAnimationFrame(frame); wanted = null;
  if (playing) at = clamp(context.currentTime - begun, 0, length);
  sources.forEach((s) => { try { s.stop(); } catch {} }); sources = []; playing = false; element.dataset.state = "paused";
  const button = find(".play"); if (button) { button.textContent = "▶"; button.setAttribute("aria-label", "Play"); }
};
const tick = () => {
  if (!playing) return;
  if (!element.isConnected || element.offsetParent === null) { stop(); return; } // another tab was opened
  at = context.currentTime - begun;
  if (at >= length) { stop(); at = 0; place(); if (find(".loop").checked) start(); return; }
  place(); frame = requestAnimationFrame(tick);
};
const place = () => {
  const share = length ? at / length : 0;
  findAll(".head").forEach((h) => (h.style.left = `${100 * share}%`));
  find(".seek").value = 1000 * share; find(".seek").setAttribute("aria-valuetext", clock(at));
  find(".time").textContent = `${clock(at)} / ${clock(length)}`;
};
const seek = async (share) => { const was = wanted; stop(); at = clamp(share, 0, 1) * length; place(); if (was) await start(); };
const pick = (i) => {
  heard = i;
  const picks = findAll(".pick"), focused = picks.includes(document.activeElement);
  picks.forEach((b, n) => { b.setAttribute("aria-checked", n === i); b.tabIndex = n === i ? 0 : -1; });
  if (focused) picks[i].focus();
  gains.forEach((g, n) => playing && g && g.gain.setTargetAtTime(level(n), context.currentTime, 0.008));
};
on("click", ".play", () => (wanted ? stop() : start()));
on("click", ".pick", (b) => { pick(+b.dataset.lane); if (!wanted) start(); });
on("click", ".trace", (t, e) => { const r = t.getBoundingClientRect(); pick(+t.dataset.lane); seek((e.clientX - r.left) / r.width); });
on("input", ".seek", (s) => seek(s.value / 1000));
on("change", ".equal input", () => pick(heard));
on("change", ".spectra", (s) => find(".listener").classList.toggle("with-spectra", s.checked));
on("click", ".submit", () => trigger("submit", { ratings: ratings() }));
element.addEventListener("keydown", (e) => {
  if (e.target.matches("input:not([type=checkbox])") || !versions().length || e.ctrlKey || e.metaKey || e.altKey) return;
  const number = +e.key - 1;
  if (e.key === " " && !e.target.matches("button:not([aria-checked=true]), input")) { e.preventDefault(); wanted ? stop() : start(); }
  else if (number >= 0 && number < versions().length) pick(number);
  else if (e.key === "ArrowRight") { e.preventDefault(); seek((at + 1) / length); }
  else if (e.key === "ArrowLeft") { e.preventDefault(); seek((at - 1) / length); }
  else if (["ArrowDown", "ArrowUp"].includes(e.key)) {
    e.preventDefault();
    pick((heard + (e.key === "ArrowDown" ? 1 : versions().length - 1)) % versions().length);
    findAll(".pick")[heard].focus();
  }
});
document.addEventListener("codec-play", (e) => { if (wanted && e.detail !== element) stop(); });
show(draw);
