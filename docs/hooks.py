"""What MkDocs does with each page: nothing is loaded from elsewhere, links are files.

The theme makes the search work without a server by a script that it takes from another
site; here that comes from its npm package, as KaTeX does (`make docs`). And where the
theme links a folder, of which a server shows `index.html`, the file is named.
"""

import re
from typing import Any

SHIM = "https://unpkg.com/iframe-worker/shim"
OWN_SHIM = "npm/iframe-worker.js"
FOLDER = re.compile(r'href="((?:\.\./)*\.{1,2})/?"')


def on_post_page(output: str, page: Any, config: Any) -> str:
    """A page as it is written."""
    return _from_a_folder(output, "../" * page.url.count("/"))


def on_post_template(output_content: str, template_name: str, config: Any) -> str:
    """The page for what is missing, which a server shows for any address."""
    if template_name != "404.html":
        return output_content
    return output_content.replace(SHIM, "/" + OWN_SHIM)


def _from_a_folder(output: str, up: str) -> str:
    output = output.replace(SHIM, up + OWN_SHIM)
    return FOLDER.sub(lambda m: f'href="{m[1]}/index.html"', output)
