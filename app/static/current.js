// What belongs to the input that is chosen now has the class "current": the card of an example, the results. They carry
// the input's digest, and so does the line about the input.
(() => {
  const mark = () => {
    const now = document.querySelector("#about [data-input]"); // not there while a tab is open that does not need an input
    if (now) document.querySelectorAll("[data-input]").forEach((e) => e.classList.toggle("current", e.dataset.input === now.dataset.input));
  };
  new MutationObserver(mark).observe(document, { childList: true, subtree: true });
})();
