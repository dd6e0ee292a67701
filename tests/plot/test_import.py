"""matplotlib is imported when something is drawn, and not before."""

import subprocess
import sys

import numpy as np
import pytest

from jaxlrp import plot


def test_importing_the_package_imports_no_matplotlib():
    code = "import jaxlrp.plot, sys; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_matplotlib_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "jaxlrp\[plot\]"'):
        plot.images(np.ones((3, 3)))
