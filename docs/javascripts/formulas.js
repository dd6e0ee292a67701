// Formulas are typeset by KaTeX, which is served with the site. Without scripts they
// stay as they are written.
document.addEventListener("DOMContentLoaded", () => {
  if (typeof katex === "undefined") return;
  for (const formula of document.querySelectorAll(".arithmatex")) {
    const written = formula.textContent.trim(); // \( ... \) or \[ ... \]
    katex.render(written.slice(2, -2), formula, {
      displayMode: written.startsWith("\\["),
      throwOnError: false,
    });
  }
});
