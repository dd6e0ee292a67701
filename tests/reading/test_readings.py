"""Programs are taken apart into the steps that the list has."""

import jax
import pytest

from tests.readings import READINGS, listed, programs, reading

PROGRAMS = dict(programs())
EXPECTED = listed(READINGS.read_text("utf-8"))


def test_the_list_has_every_program():
    assert list(EXPECTED) == list(PROGRAMS)


@pytest.mark.whole
@pytest.mark.filterwarnings("ignore::jaxlrp.errors.TrainingWarning")
@pytest.mark.filterwarnings("ignore::jaxlrp.errors.IndependentArgumentWarning")
@pytest.mark.filterwarnings("ignore::jaxlrp.errors.TargetWarning")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_read_as_it_was(name):
    with jax.enable_x64(True):
        assert reading(PROGRAMS[name]) == EXPECTED[name]
