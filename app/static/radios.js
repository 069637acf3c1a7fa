// Gradio gives every radio button a name of its own, and another after each choice. With one name a group is one stop of
// Tab, and arrows choose in it.
new MutationObserver(() => {
  for (const group of document.querySelectorAll("fieldset")) {
    const radios = group.querySelectorAll("input[type=radio]");
    radios.forEach((radio) => radio.name !== radios[0].name && (radio.name = radios[0].name));
  }
}).observe(document, { childList: true, subtree: true, attributeFilter: ["name"] });
