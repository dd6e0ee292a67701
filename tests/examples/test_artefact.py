"""The planted artefact is found."""

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("PIL")

from examples import artefact  # noqa: E402
from jaxlrp import clusters, runs  # noqa: E402


def test_the_marked_threes_are_a_cluster_of_their_own(tmp_path, capsys):
    artefact.main([f"--out={tmp_path}", "--steps=150"])
    images, labels, marked = artefact.data(0.5)
    run = runs.Attributions(tmp_path / "run")
    assert run.complete and run["right"][:].mean() > 0.95
    found = clusters.by_class(clusters.prepared(run["relevance"][:]), labels)
    assert next(iter(found)) == artefact.MARKED  # the best separated class
    _, pure, whole = artefact.purity(found[artefact.MARKED], marked)
    assert pure > 0.95 and whole > 0.95
    heat = np.abs(run["relevance"][np.nonzero(marked)[0]]).mean(0)
    assert np.unravel_index(heat.argmax(), heat.shape) in [(0, 0), (0, 1), (1, 0)]
    assert (tmp_path / "clusters.html").exists()
    assert (tmp_path / "clusters.png").stat().st_size > 10_000
    assert "class 3: separation" in capsys.readouterr().out
