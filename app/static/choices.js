// Examples as cards.
const draw = () => {
  const value = props.value || {}, cards = value.cards || [];
  find(".choices").innerHTML = cards.map((c) => `
    <button type="button" data-name="${esc(c.name)}" data-input="${esc(c.input)}">
      ${c.thumb ? `<img src="${esc(c.thumb)}" alt="" loading="lazy">` : `<span class="sound" aria-hidden="true">${"<i></i>".repeat(7)}</span>`}
      <span class="title">${esc(c.title)}</span><span class="sub">${esc(c.note || "")}</span></button>`).join("");
};
on("click", "button", (b) => trigger("select", { name: b.dataset.name }));
show(draw);
