"""Draws the pictures of the how-to pages: runs each script, keeps what it drew.

    python docs/generate_gallery.py [NAME ...]      docs/images/howto/*.png

The same arrays give the same bytes; those of trained networks differ between machines.
"""

from __future__ import annotations

import argparse
import io
import os
import pathlib
import runpy
import sys
import tempfile
from collections.abc import Sequence

from PIL import Image

from jaxlrp import _files

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "examples" / "howto"
IMAGES = ROOT / "docs" / "images" / "howto"
LARGE = 200_000  # bytes


def names() -> list[str]:
    """The scripts, each a job."""
    return sorted(p.stem for p in SCRIPTS.glob("*.py") if p.stem != "small")


def small(path: pathlib.Path) -> bytes:
    """A picture; of a large one, as with photographs, 256 colours are left."""
    with Image.open(path) as image:
        picture = image.convert("RGB")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    if len(buffer.getvalue()) > LARGE:
        buffer = io.BytesIO()
        few = picture.quantize(256, dither=Image.Dither.NONE)
        few.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def drawn(name: str) -> dict[str, bytes]:
    """What a script draws, by file."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
            return {p.name: small(p) for p in pathlib.Path().glob("*.png")}
        finally:
            os.chdir(before)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw docs/images/howto/*.png.")
    parser.add_argument("names", nargs="*", help="scripts, by default all")
    sys.path.insert(0, str(ROOT))  # `examples` is there
    for name in parser.parse_args(argv).names or names():
        for file, content in drawn(name).items():
            _files.write(IMAGES / file, content, folders=True)
            print(IMAGES / file, flush=True)


if __name__ == "__main__":
    main()
