"""Eight devices on any machine, and no state that one test leaves to another."""

import os
import pathlib
import shutil

# Read when JAX starts its backend, so set before any test imports it.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# Programs run once or twice here; compiling them well takes longer than that. With 0
# they are compiled as users compile them.
QUICK = "jax_disable_most_optimizations"
os.environ.setdefault(QUICK.upper(), "1")
DEVICES = "--xla_force_host_platform_device_count"
if DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES}=8".strip()

# Most of the time goes into compiling: what a test compiled is kept for the other
# workers and for the next run.
HERE = pathlib.Path(__file__).parent.parent / ".jax_cache"
PROGRAMS = pathlib.Path(os.environ.get("JAXLRP_TEST_PROGRAMS", HERE))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(PROGRAMS))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import hypothesis  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from jaxlrp.primitives import _book  # noqa: E402
from tests import parts, slow  # noqa: E402

# Compiling takes longer than any deadline; a failure in CI is one that the next
# run finds again.
hypothesis.settings.register_profile("local", deadline=None, max_examples=25)
hypothesis.settings.register_profile(
    "ci", deadline=None, max_examples=25, derandomize=True, print_blob=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_addoption(parser):
    parser.addoption(
        "--part",
        type=parts.of_text,
        metavar="K/N",
        help="of the cases of each test function run the Kth of N parts",
    )
    parser.addoption(
        "--only",
        choices=("quick", "slow"),
        help="only what takes a moment, or only what tests/slow.txt lists",
    )
    parser.addoption(
        "--turn",
        type=parts.of_text,
        metavar="K/N",
        help="of the test files run the Kth of N parts",
    )


def pytest_configure(config):
    """Kept programs of code that was since changed do not pile up: 1 GiB at most."""
    if hasattr(config, "workerinput") or not PROGRAMS.exists():
        return
    if sum(path.stat().st_size for path in PROGRAMS.iterdir()) > 2**30:
        shutil.rmtree(PROGRAMS)


def pytest_collection_modifyitems(config, items):
    """`--part K/N`: every test function, but not with everything it is given.

    `--only quick` or `slow`: then those that take a moment, or longer. What is marked
    `always` counts as quick. `--turn K/N`: then not in every file.
    """
    part, only = config.getoption("--part"), config.getoption("--only")
    kept = {item.nodeid for item in items}
    if part is not None:
        whole = {item.nodeid for item in items if item.get_closest_marker("whole")}
        kept = whole | parts.chosen(
            [i.nodeid for i in items if i.nodeid not in whole], *part
        )
    if only is not None:
        always = {item.nodeid for item in items if item.get_closest_marker("always")}
        long = slow.chosen(kept - always)
        kept = long if only == "slow" else kept - long
    if config.getoption("--turn") is not None:
        kept = parts.turn(sorted(kept), *config.getoption("--turn"))
    config.hook.pytest_deselected(items=[i for i in items if i.nodeid not in kept])
    items[:] = [item for item in items if item.nodeid in kept]


STATES = pytest.StashKey[dict]()


def pytest_collection_finish(session):
    """Remember where each module's generators stand before any test draws."""
    session.stash[STATES] = {
        generator: generator.bit_generator.state
        for module in {item.module for item in session.items}
        for generator in vars(module).values()
        if isinstance(generator, np.random.Generator)
    }


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """A test draws the same numbers, whichever tests ran before it."""
    for generator, state in item.session.stash[STATES].items():
        generator.bit_generator.state = state


@pytest.fixture(autouse=True)
def jax_config_as_found():
    """Switches that a test flips with `jax.config.update` are flipped back."""
    names = ("jax_enable_x64", "jax_debug_nans", "jax_default_matmul_precision")
    found = {name: getattr(jax.config, name) for name in names}
    quick = jax.config.read(QUICK)
    yield
    jax.config.update(QUICK, quick)
    for name, value in found.items():
        if getattr(jax.config, name) != value:
            jax.config.update(name, value)


@pytest.fixture(autouse=True, scope="module")
def compiled_programs_freed():
    """Programs of a finished module are dropped: thousands would fill the memory."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def rule_book_as_it_was():
    """Rules that a test or an example registers are gone after it."""
    before = dict(_book._by_primitive)
    yield
    _book._by_primitive.clear()
    _book._by_primitive.update(before)
