// One bubble for every explanation on the page, on hover, focus and touch; it never leaves the window.
(() => {
  let bubble;
  const open = (target) => {
    if (!bubble) { bubble = document.createElement("div"); bubble.className = "bubble"; bubble.id = "bubble"; bubble.setAttribute("role", "tooltip"); document.body.append(bubble); }
    bubble.textContent = target.dataset.tip; bubble.classList.add("open"); target.setAttribute("aria-describedby", "bubble");
    const r = target.getBoundingClientRect(), b = bubble.getBoundingClientRect();
    bubble.style.left = `${Math.max(8, Math.min(r.left + r.width / 2 - b.width / 2, innerWidth - b.width - 8))}px`;
    bubble.style.top = `${r.top - b.height - 8 > 8 ? r.top - b.height - 8 : r.bottom + 8}px`;
  };
  const shut = () => bubble && bubble.classList.remove("open");
  const act = (e) => { const t = e.target.closest && e.target.closest("[data-tip]"); t ? open(t) : shut(); };
  for (const event of ["mouseover", "focusin", "click"]) document.addEventListener(event, act);
  document.addEventListener("scroll", shut, true);
  document.addEventListener("keydown", (e) => e.key === "Escape" && shut());
})();
