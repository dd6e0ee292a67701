// Formulas are typeset by KaTeX, which is served with the site. Without scripts they
// stay as they are written.
function typeset() {
  if (typeof katex === "undefined") return;
  for (const formula of document.querySelectorAll(".arithmatex")) {
    const written = formula.textContent.trim(); // \( ... \) or \[ ... \]
    katex.render(written.slice(2, -2), formula, {
      displayMode: written.startsWith("\\["),
      throwOnError: false,
    });
  }
}

// Code in tables may be broken behind dots, brackets and the like, but not in a name.
function breakable() {
  for (const code of document.querySelectorAll(".md-typeset :is(td, th) code")) {
    if (code.children.length) continue;
    const parts = code.textContent.split(/(?<=[.,(\[=/])(?![\d)\]])/);
    code.replaceChildren(
      ...parts.flatMap((part, i) => (i ? [document.createElement("wbr"), part] : [part])),
    );
  }
}

// What scrolls can be scrolled by the keyboard.
function reachable() {
  const scrolls = ".md-typeset pre > code, .md-typeset__scrollwrap, div.arithmatex";
  for (const place of document.querySelectorAll(scrolls)) {
    if (place.scrollWidth > place.clientWidth) place.tabIndex = 0;
  }
}

document.addEventListener("DOMContentLoaded", () => {
  typeset();
  breakable();
  reachable();
});
window.addEventListener("load", reachable);
window.addEventListener("resize", reachable);
