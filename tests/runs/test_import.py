"""`import jaxlrp` loads nothing that only runs need."""

import subprocess
import sys

from tests.runs import small

HEAVY = ("tensorstore", "h5py", "grain", "sklearn", "ray", "rich", "PIL", "zarr")


def test_the_package_loads_no_library_that_only_runs_need():
    code = (
        "import sys, jaxlrp, jaxlrp.runs, jaxlrp.clusters, jaxlrp.__main__\n"
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    root = small.__file__.split("tests")[0]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
