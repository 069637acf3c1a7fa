// What every control of the page uses. `element`, `props`, `trigger` and `watch` come from Gradio.
const esc = (text) => String(text ?? "").replace(/[&<>"']/g, (c) => "&#" + c.charCodeAt(0) + ";");
const find = (selector) => element.querySelector(selector);
const findAll = (selector) => [...element.querySelectorAll(selector)];
const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const on = (event, selector, handler) =>
  element.addEventListener(event, (e) => {
    const target = e.target.closest(selector);
    if (target && element.contains(target)) handler(target, e);
  });
const clock = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}.${Math.floor((s * 10) % 10)}`;
const NARROW = 860; // pixels; below, results lie under the controls, out of sight
// What is drawn: another state of the same result, such as another layer, metric or spot, has the same name.
const result = () => { const value = props.value || {}; return value.result || value.url || value.series || (value.versions || []).map((v) => v.url).join(" "); };
const show = (draw) => {
  let drawn = result();
  watch("value", () => {
    const before = drawn;
    draw(); drawn = result();
    if (innerWidth < NARROW && drawn && drawn !== before)
      element.scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  });
  draw();
};
const rateRow = (v) => `
  <label class="rate"><span>Quality of ${esc(v.label)}</span>
  <input type="range" min="0" max="100" value="50" data-rate="${esc(v.label)}" aria-label="Quality of ${esc(v.label)}, 0 to 100">
  <output>not rated</output></label>`;
const ratings = () => Object.fromEntries(findAll("[data-rate][data-touched]").map((r) => [r.dataset.rate, +r.value]));
const rate = (input) => {
  input.dataset.touched = "1";
  input.parentElement.querySelector("output").textContent = input.value;
};
// Where the slider begins, a click or a key does not move it, and it has no input event.
for (const event of ["input", "change", "pointerup"]) on(event, "[data-rate]", rate);
on("keyup", "[data-rate]", (input, e) => (e.key === "Enter" || e.key === " ") && rate(input));
