// Looks at each page of the built site in a browser: can it be used by everyone (axe), does
// it fit a phone, does a script fail, are all formulas typeset and all pictures there?
//
//     node .ci/web/pages.mjs site [--only rules,howto/] [--pictures FOLDER]
//
// Desktop and phone, light and dark. With `--pictures` each page is also drawn.
// A Chromium has to be there: CHROMIUM names it, else the usual names are tried.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { join, relative, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "chrome"];
const PATIENCE = 300_000; // milliseconds: machines of CI do other things beside
const SCREENS = {
  desktop: { width: 1280, height: 900 },
  phone: { width: 390, height: 844, isMobile: true, hasTouch: true },
};
const SCHEMES = { light: "default", dark: "slate" };
// Colours are measured in both schemes; of all else the second would say the same.
const CHECKS = {
  "desktop light": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"],
  "desktop dark": { type: "rule", values: ["color-contrast"] },
};

function chromium() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  for (const name of NAMES) {
    try {
      return execFileSync("which", [name], { stdio: ["ignore", "pipe", "ignore"] })
        .toString()
        .trim();
    } catch {
      continue;
    }
  }
  return null;
}

function htmlFiles(folder) {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) return htmlFiles(path);
    return name.endsWith(".html") && name !== "404.html" ? [path] : [];
  });
}

function option(name) {
  const at = process.argv.indexOf(name);
  return at < 0 ? null : process.argv[at + 1];
}

const site = resolve(process.argv[2]);
const only = option("--only")?.split(",");
const pictures = option("--pictures");
const browserPath = chromium();
if (!browserPath || !existsSync(browserPath)) {
  console.log("no Chromium was found: the pages were NOT looked at");
  process.exit(process.env.CHROMIUM ? 1 : 0);
}
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"))
  .toString();
const pages = htmlFiles(site)
  .map((path) => relative(site, path))
  .filter((name) => !only || only.some((start) => name.startsWith(start)))
  .sort();
const faults = new Map(); // what is wrong -> where

function report(fault, where) {
  faults.set(fault, [...(faults.get(fault) ?? []), where]);
}

// What a reader would take for a mistake of the writer; runs in the page.
function unread() {
  const article = document.querySelector("article");
  const found = [];
  for (const formula of article.querySelectorAll(".arithmatex")) {
    const wrong = formula.querySelector(".katex-error") || !formula.querySelector(".katex");
    if (wrong) found.push(`a formula is not typeset: ${formula.textContent.slice(0, 80)}`);
  }
  for (const picture of article.querySelectorAll("img")) {
    if (!picture.naturalWidth) found.push(`a picture is missing: ${picture.src}`);
  }
  const texts = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  const markup = /\$[^\s$][^$]*\$|```|\[[^\]]+\]\([^)]+\)|\*\*\S[^*]*\*\*/;
  const beside = "code, pre, script, style, .arithmatex, .jaxlrp-text";
  while (texts.nextNode()) {
    const { parentElement, textContent } = texts.currentNode;
    if (!parentElement.closest(beside) && markup.test(textContent)) {
      found.push(`markup is shown: ${textContent.trim().slice(0, 80)}`);
    }
  }
  return found;
}

async function look(tab, name, screen, scheme) {
  const where = `${name} (${screen}, ${scheme})`;
  await tab.goto(pathToFileURL(join(site, name)).href, { waitUntil: "load" });
  await tab.addStyleTag({ content: "*{transition:none!important}" });
  await tab.evaluate((value) => {
    document.body.setAttribute("data-md-color-scheme", value);
  }, SCHEMES[scheme]);
  const wide = await tab.evaluate(() => {
    const page = document.documentElement;
    return page.scrollWidth > page.clientWidth + 1;
  });
  if (wide) report("the page is wider than the screen", where);
  for (const fault of await tab.evaluate(unread)) report(fault, where);
  if (pictures) {
    mkdirSync(pictures, { recursive: true });
    const file = `${name.replaceAll("/", "_").replace(".html", "")}-${screen}-${scheme}`;
    const height = Math.min(6000, await tab.evaluate(() => document.body.scrollHeight));
    const clip = { x: 0, y: 0, width: SCREENS[screen].width, height };
    await tab.screenshot({ path: join(pictures, `${file}.png`), clip, captureBeyondViewport: true });
  }
  const checks = CHECKS[`${screen} ${scheme}`];
  if (!checks) return;
  await tab.evaluate(axe);
  const { violations } = await tab.evaluate(
    (options) => axe.run(document, { resultTypes: ["violations"], runOnly: options }),
    checks,
  );
  for (const { id, help, nodes } of violations) {
    for (const { target } of nodes) report(`${id}: ${help}: ${target}`, where);
  }
}

const browser = await puppeteer.launch({
  executablePath: browserPath,
  args: ["--no-sandbox", "--allow-file-access-from-files"],
  timeout: PATIENCE,
  protocolTimeout: PATIENCE,
});
const start = Date.now();
try {
  for (const [screen, viewport] of Object.entries(SCREENS)) {
    const tab = await browser.newPage();
    await tab.setViewport(viewport);
    tab.setDefaultTimeout(PATIENCE);
    tab.on("pageerror", (error) => report(`a script fails: ${error.message}`, tab.url()));
    for (const name of pages) {
      for (const scheme of Object.keys(SCHEMES)) {
        const same = screen === "phone" && scheme === "dark" && !pictures;
        if (!same) await look(tab, name, screen, scheme);
      }
    }
    await tab.close();
  }
} finally {
  await browser.close();
}
for (const [fault, places] of faults) {
  const more = places.length > 3 ? ` and ${places.length - 3} more` : "";
  console.log(`${fault}\n    ${places.slice(0, 3).join("\n    ")}${more}`);
}
const seconds = Math.round((Date.now() - start) / 1000);
console.log(`${pages.length} pages in ${seconds} s, ${faults.size} faults`);
process.exit(faults.size ? 1 : 0);
