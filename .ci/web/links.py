"""Do the links of the built site lead somewhere, also from a folder without network?

    python .ci/web/links.py site

Each `href` and `src` of each page, and each `url()` of its style sheets, has to be a
file of the site; a fragment has to be an `id` there. What a page loads (scripts,
styles, fonts) must not come from elsewhere; links to other sites are not followed.
"""

from __future__ import annotations

import html.parser
import pathlib
import re
import sys
import urllib.parse

# These load something; `a` only leads there.
LOADING = {"img", "script", "link", "iframe", "source", "video", "audio", "object"}
# Says where a page belongs, or where else it is: nothing is loaded.
NAMING = {"canonical", "prev", "next", "alternate", "edit"}
URL = re.compile(r"url\(\s*['\"]?([^'\")]+)['\"]?\s*\)")


class Page(html.parser.HTMLParser):
    """The links of a page, as (tag, address), and its fragments."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids |= {value for key in ("id", "name") if (value := given.get(key))}
        if set((given.get("rel") or "").split()) & NAMING:
            return
        for key in ("href", "src", "data", "poster"):
            if value := given.get(key):
                self.links.append((tag, value))


def faults(site: pathlib.Path) -> list[str]:
    """What is wrong, one line each."""
    pages = {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        where = path.relative_to(site)
        for tag, address in page.links:
            reason = fault(site, pages, path, tag, address)
            if reason:
                found.append(f"{where}: {address}: {reason}")
    for path in sorted(site.rglob("*.css")):
        for address in URL.findall(path.read_text()):
            if not address.startswith(("data:", "#")):
                reason = fault(site, pages, path, "img", address)
                if reason:
                    found.append(f"{path.relative_to(site)}: {address}: {reason}")
    return found


def fault(
    site: pathlib.Path,
    pages: dict[pathlib.Path, Page],
    path: pathlib.Path,
    tag: str,
    address: str,
) -> str:
    """Why an address on a page leads nowhere, or nothing."""
    parts = urllib.parse.urlsplit(address)
    if parts.scheme in ("mailto", "data", "javascript"):
        return ""
    if parts.scheme or parts.netloc:
        return "is loaded from another site" if tag in LOADING else ""
    if parts.path.startswith("/"):
        # The page that a server shows for what is missing knows no folder of its own.
        return "" if path == site / "404.html" else "is the server's root"
    file = path
    if parts.path:
        file = (path.parent / urllib.parse.unquote(parts.path)).resolve()
    if file.is_dir():
        return "is a folder, which is no page without a server"
    if not file.exists():
        return "does not exist"
    fragment = urllib.parse.unquote(parts.fragment)
    if fragment and file in pages and fragment not in pages[file].ids:
        return "has no such place"
    return ""


def main() -> int:
    site = pathlib.Path(sys.argv[1]).resolve()
    found = faults(site)
    print(
        "\n".join(found) or f"the links of {len(list(site.rglob('*.html')))} pages hold"
    )
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
