"""What the page on the design says of the tree is so."""

import ast
import pathlib
import re
import sys
import types

import jax
import jax.numpy as jnp

import jaxlrp
from jaxlrp import composites
from jaxlrp._reading import read

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / "jaxlrp"
PAGE = (ROOT / "docs" / "design.md").read_text()
FILE = re.compile(r"`([\w/]+\.(?:py|md))`")


def section(title):
    (text,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    return text


def test_every_file_that_the_page_names_is_there():
    missing = [
        name
        for name in FILE.findall(PAGE)
        if not any(
            (folder / name).exists() for folder in (PACKAGE, ROOT, ROOT / "docs")
        )
    ]
    assert not missing


def claims_in_order():
    """The modules of the functions that `_claim` calls, in order."""
    tree = ast.parse(pathlib.Path(read.__file__).read_text())
    (claim,) = (
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == "_claim"
    )
    calls = [
        node
        for node in ast.walk(claim)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id.startswith("claim_")
    ]
    names = [call.func.id for call in sorted(calls, key=lambda c: c.lineno)]
    modules = [getattr(read, name).__module__.split(".")[-1] for name in names]
    return list(dict.fromkeys(modules))


def test_the_readers_order_is_the_one_on_the_page():
    steps = re.findall(r"^\d\. \*\*.*?(?=^\d\. |\n\n)", section("Reading"), re.M | re.S)
    told = [
        name for step in steps for name in re.findall(r"`_reading/(\w+)\.py`", step)
    ]
    told = [name for name in dict.fromkeys(told) if name in claims_in_order()]
    order = [name for name in claims_in_order() if name in told]
    assert {"softmax", "layers", "activations", "sums"} <= set(told)
    # Norms are told of where layers are, whose chains they end.
    assert [n for n in told if n != "norms"] == [n for n in order if n != "norms"]


def test_a_message_passes_the_files_that_the_page_names():
    """The files named, and no other of the three floors that does much for it."""
    ran = set()

    def watch(frame: types.FrameType, event, arg):
        path = pathlib.Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            ran.add(path.relative_to(PACKAGE).as_posix())

    w1, w2 = jnp.ones((2, 3)), jnp.ones((3, 2))
    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        explain = jaxlrp.value_and_lrp(
            lambda x: jax.nn.relu(x @ w1 + 1.0) @ w2, composites.Epsilon()
        )
        explain(jnp.array([1.0, 2.0]))
    finally:
        sys.setprofile(before)
    told = set(FILE.findall(section("One message, from output to input")))
    assert told and told <= ran
