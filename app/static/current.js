// What belongs to the input that is chosen now has the class "current": the card of an example, the results. They carry
// the input's digest, and so does the line about the input. A heading that is new is said to those who do not see it.
(() => {
  const said = document.createElement("div"), known = new WeakSet();
  said.className = "said"; said.setAttribute("aria-live", "polite");
  const say = (text) => { said.textContent = ""; setTimeout(() => (said.textContent = text), 100); }; // a change, also if it is the same text
  const mark = () => {
    if (document.body && !said.isConnected) document.body.append(said);
    const now = document.querySelector("#about [data-input]"); // not there while a tab is open that does not need an input
    if (now) document.querySelectorAll("[data-input]").forEach((e) => e.classList.toggle("current", e.dataset.input === now.dataset.input));
    for (const heading of document.querySelectorAll(".whose h3")) {
      if (known.has(heading)) continue;
      known.add(heading); say(heading.textContent);
    }
  };
  new MutationObserver(mark).observe(document, { childList: true, subtree: true });
})();
