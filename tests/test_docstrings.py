"""Every public name says what it takes, and shows how it is used."""

import ast
import dataclasses
import enum
import functools
import importlib
import inspect
import re
import textwrap
import types

import pytest

import jaxlrp

pytestmark = pytest.mark.whole
MODULES = (
    "jaxlrp",
    "jaxlrp.attribution",
    "jaxlrp.compat",
    "jaxlrp.compat.captum",
    "jaxlrp.compat.chefer",
    "jaxlrp.compat.dynamiclrp",
    "jaxlrp.compat.innvestigate",
    "jaxlrp.compat.lrp_toolbox",
    "jaxlrp.compat.lxt",
    "jaxlrp.compat.relevancepropagation_jl",
    "jaxlrp.compat.zennit",
    "jaxlrp.clusters",
    "jaxlrp.patching",
    "jaxlrp.composites",
    "jaxlrp.concepts",
    "jaxlrp.deep_taylor",
    "jaxlrp.errors",
    "jaxlrp.evaluation",
    "jaxlrp.evaluation.baselines",
    "jaxlrp.evaluation.protocols",
    "jaxlrp.interactions",
    "jaxlrp.plot",
    "jaxlrp.primitives",
    "jaxlrp.rules",
    "jaxlrp.runs",
    "jaxlrp.similarity",
    "jaxlrp.targets",
    "jaxlrp.taylor",
    "jaxlrp.text",
    "jaxlrp.walks",
)
SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Warns", "Examples", "Source")


def public(module):
    """The functions and classes of a module's `__all__`."""
    found = importlib.import_module(module)
    named = ((name, getattr(found, name)) for name in found.__all__)
    return {
        name: value
        for name, value in named
        if inspect.isclass(value) or inspect.isfunction(value)
    }


def section(text, *names):
    """The lines of sections of a docstring."""
    lines = inspect.cleandoc(text).splitlines()
    inside, found = False, []
    for line in lines:
        if re.match(rf"({'|'.join(SECTIONS)}):", line):
            inside = line.rstrip(":").split(":")[0] in names
        elif inside:
            found.append(line)
    return found


def described(text):
    """What the sections on arguments name, each at the beginning of a line."""
    lines = section(text, "Args", "Attributes")
    heads = (
        re.match(r"  (\*{0,2}\w+(?:, \*{0,2}\w+)*): ", f"{line} ") for line in lines
    )
    return [name for head in heads if head for name in head[1].split(", ")]


def taken(value):
    """The parameters of a function, or of what makes an instance of a class."""
    if inspect.isclass(value) and issubclass(value, enum.Enum | Exception):
        return []
    if getattr(value, "_is_protocol", False):  # nobody makes one
        return []
    if inspect.isclass(value) and "__init__" not in vars(value):
        made = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
        return [field.name for field in made if field.init]
    function = value.__init__ if inspect.isclass(value) else value
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parameters = inspect.signature(function).parameters.values()
    names = [f"{stars.get(p.kind, '')}{p.name}" for p in parameters]
    return [name for name in names if name != "self"]


@pytest.mark.parametrize("module", MODULES)
def test_every_argument_is_described(module):
    missing = {}
    for name, value in public(module).items():
        known = described(value.__doc__ or "")
        own = [one for one in taken(value) if one not in known]
        if own:
            missing[name] = own
    assert not missing


@pytest.mark.parametrize("module", MODULES)
def test_no_argument_is_described_that_is_not_taken(module):
    extra = {}
    for name, value in public(module).items():
        if inspect.isclass(value):
            continue
        known = described(value.__doc__ or "")
        own = [one for one in known if one not in taken(value)]
        if own:
            extra[name] = own
    assert not extra


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_an_example(module):
    assert not [n for n, v in public(module).items() if ">>> " not in (v.__doc__ or "")]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_names_what_it_has(module):
    """No name leaks from what it imports, and all that is defined in it is named."""
    found = importlib.import_module(module)
    defined = {
        name
        for name, value in vars(found).items()
        if not name.startswith("_")
        and getattr(value, "__module__", None) == found.__name__
        and (inspect.isclass(value) or inspect.isfunction(value))
    }
    assert defined <= set(found.__all__)
    assert all(hasattr(found, name) for name in found.__all__)


def test_every_module_of_the_package_is_looked_at():
    inside = {
        f"jaxlrp.{name}"
        for name in jaxlrp.__all__
        if inspect.ismodule(getattr(jaxlrp, name))
    }
    assert inside <= set(MODULES)


def methods(kind):
    return [
        (kind, name)
        for name, value in vars(kind).items()
        if not name.startswith("_") and inspect.isfunction(value)
    ]


@pytest.mark.parametrize("name", ["on", "replace", "hold", "named"])
def test_methods_of_composites_are_described(name):
    method = getattr(jaxlrp.composites.Composite, name)
    missing = [one for one in taken(method) if one not in described(method.__doc__)]
    assert not missing


# ---- errors --------------------------------------------------------------------------

MEASURES = ("evaluation", "evaluation.baselines", "evaluation.protocols")
CHECKING = ("jaxlrp.evaluation", "jaxlrp.attribution._checks")
OTHERS = {("dynamiclrp", "TypeError", "score")}
"""`score` is the name of a measure there, and a function where its measure is made."""


@functools.cache
def tree(function):
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def called(node, function):
    """The function that a call is of, where it is one of a module."""
    name = node.func
    if isinstance(name, ast.Name):
        return function.__globals__.get(name.id)
    if isinstance(name, ast.Attribute) and isinstance(name.value, ast.Name):
        return getattr(function.__globals__.get(name.value.id), name.attr, None)
    return None


def argument(nodes):
    """The argument that a message begins with, or that a check is told of."""
    for node in nodes:
        text = node.values[0] if isinstance(node, ast.JoinedStr) else node
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            named = re.match(r"(\w+)(?:$|:)", text.value)
            return named[1] if named else None
    return None


def raised(function, seen=()):
    """Errors that a function and its helpers raise: their kind, and the argument."""
    if function in seen:
        return set()
    found = set()
    for node in ast.walk(tree(function)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            found.add((node.exc.func.id, argument(node.exc.args)))
        inner = called(node, function) if isinstance(node, ast.Call) else None
        if isinstance(inner, types.FunctionType):
            if inner.__module__.startswith(CHECKING):
                name = argument(node.args)
                below = raised(inner, (*seen, function))
                found |= {(kind, own or name) for kind, own in below}
    return found


def said_of_errors(text):
    """What the section on errors says of each kind."""
    entries = re.split(
        r"^  (?=\w+Error: )", "\n".join(section(text, "Raises")), flags=re.M
    )
    return dict(entry.split(": ", 1) for entry in entries if entry.strip())


@pytest.mark.parametrize("module", MEASURES)
def test_errors_of_measures_are_described_with_the_argument(module):
    missing = []
    for name, value in public(f"jaxlrp.{module}").items():
        if not inspect.isfunction(value):
            continue
        said = said_of_errors(value.__doc__)
        missing += [
            (name, kind, own)
            for kind, own in raised(value)
            if own in taken(value)
            and f"`{own}`" not in said.get(kind, "")
            and (name, kind, own) not in OTHERS
        ]
    assert not missing


def test_errors_are_found_through_helpers():
    """Else the test above would pass for nothing."""
    found = raised(jaxlrp.evaluation.flipping)
    assert {("ValueError", "order"), ("TypeError", "score")} <= found
    assert ("ValueError", "where") in found
