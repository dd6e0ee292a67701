"""What is installed is what the tree holds, and only `_compat` meets JAX's insides."""

import importlib
import importlib.metadata
import pathlib
import pkgutil
import re
import subprocess
import sys
import tomllib

import jax
import pytest

import jaxlrp
import jaxlrp.primitives

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("jaxlrp/**/*.py"), *ROOT.glob("primitives/**/*.py")])
PRIMITIVES = sorted(path.stem for path in ROOT.glob("primitives/*.py"))

# No promise holds for these between two versions of JAX.
INSIDES = re.compile(
    r"jax\._src|jax\.interpreters|jax\.core\b|\b__version__|__version_info__"
    r"|from jax import [^\n]*\b(?:core|interpreters|_src)\b"
)
OWN_VERSION = re.compile(r'^__version__ = "[^"]+"$', re.MULTILINE)


def relative(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert jaxlrp.__version__ == project["version"]
    assert jaxlrp.__version__ == importlib.metadata.version("jaxlrp")


def test_every_folder_of_the_package_is_installed():
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent for path in ROOT.glob("jaxlrp/**/*.py")}
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert {*tools["packages"]} == {*names, "jaxlrp.primitives"}


def test_python_and_jax_are_supported_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lower = next(d for d in project["dependencies"] if d.startswith("jax>="))
    bound = tuple(int(part) for part in lower.removeprefix("jax>=").split("."))
    assert jax.__version_info__ >= bound


@pytest.mark.parametrize("name", jaxlrp.__all__)
def test_public_name_exists_and_is_documented(name):
    assert getattr(jaxlrp, name).__doc__


@pytest.mark.parametrize("name", PRIMITIVES)
def test_rule_book_is_importable_under_its_installed_name(name):
    module = "jaxlrp.primitives" + ("" if name == "__init__" else f".{name}")
    found = importlib.import_module(module).__file__
    assert found and pathlib.Path(found).name == f"{name}.py"


def test_every_module_says_what_it_is_for():
    found = pkgutil.walk_packages(jaxlrp.__path__, "jaxlrp.")
    names = {"jaxlrp", "jaxlrp.primitives", *(module.name for module in found)}
    names |= {f"jaxlrp.primitives.{name}" for name in PRIMITIVES if name != "__init__"}
    bare = [name for name in sorted(names) if not importlib.import_module(name).__doc__]
    assert not bare


IMPORTED = """
import sys, jaxlrp
before = {name for name in sys.modules if name.startswith("jaxlrp.")}
assert "jaxlrp.rules" in before
assert not {"matplotlib", "sklearn", "keras"} & {*sys.modules}
for name in ("attribution", "evaluation", "patching", "plot", "runs", "walks"):
    assert f"jaxlrp.{name}" not in before, name
    assert name in dir(jaxlrp)
    assert getattr(jaxlrp, name) is sys.modules[f"jaxlrp.{name}"]
from jaxlrp import *
assert text is jaxlrp.text
"""


def test_what_stands_on_the_transformations_is_imported_when_it_is_asked_for():
    subprocess.run([sys.executable, "-c", IMPORTED], check=True, cwd=ROOT)
    with pytest.raises(AttributeError, match="'jaxlrp' has no attribute 'nothing'"):
        jaxlrp.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_type_information_is_shipped():
    assert (pathlib.Path(jaxlrp.__path__[0]) / "py.typed").exists()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_only_compat_meets_the_insides_of_jax(path):
    if path == ROOT / "jaxlrp" / "_compat.py":
        return
    text = path.read_text()
    if path == ROOT / "jaxlrp" / "__init__.py":
        text = OWN_VERSION.sub("", text)
    assert not INSIDES.findall(text)


PARAMETER = re.compile(
    r"""params(?:\[|\.get\()["'](\w+)|["'](\w+)["'] in \w*\.?params"""
)
OWN = {"call"}
"""The parameter of the primitive that is the package's own."""


@pytest.mark.whole
@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_only_compat_and_the_rule_book_know_the_parameters_of_equations(path):
    if path == ROOT / "jaxlrp" / "_compat.py" or "primitives" in path.parts:
        return
    code = re.sub(r'"""(?:.|\n)*?"""', "", path.read_text())
    assert {name for pair in PARAMETER.findall(code) for name in pair if name} <= OWN


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_rule_book_is_never_imported_twice(path):
    # As `primitives` it would be a second copy, with a registry of its own.
    assert not re.search(r"^\s*(from|import) primitives\b", path.read_text(), re.M)
