"""Runs in the formats of ViRelAy and zennit-crp."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlrp import _files, errors
from jaxlrp.runs._attributions import Attributions

if TYPE_CHECKING:
    from jaxlrp.clusters import Clusters

STRATEGIES = ("true_label", "predicted_label")


def export_virelay(
    run: Attributions,
    out: str | os.PathLike[str],
    *,
    images: Any,
    labels: Any,
    predictions: Any,
    names: Sequence[str],
    relevance: str = "relevance",
    clusters: Mapping[int, Clusters] | None = None,
    project: str = "jaxlrp",
    model: str = "network",
    method: str = "LRP",
    strategy: str = "predicted_label",
) -> pathlib.Path:
    """Writes a project that ViRelAy opens: `virelay out/project.yaml`.

    Beside `project.yaml` there are `label-map.json`, `input.h5`, `attribution.h5` and,
    with clusters, `analysis.h5`, each whole or not at all. Needs h5py:
    `pip install jaxlrp[virelay]`.

    Args:
      run: a complete run.
      out: the folder, which is made.
      images: (rows, height, width, channels) or without channels: uint8, or floats in
        [0, 1], or in [-1, 1] where one is negative, which are rounded to uint8.
      labels: the true classes, int (rows,).
      predictions: the scores, (rows, classes); an array of the run will do.
      names: of the classes.
      relevance: the name of the run's array, of the images' shape, or without the
        channels.
      clusters: by class, of `jaxlrp.clusters.by_class`.
      project: the project's name.
      model: the model's name.
      method: the attribution's name.
      strategy: `"predicted_label"` or `"true_label"`: what was explained.

    Returns:
      The path of `project.yaml`.

    Raises:
      RunError: if the run is not complete.
      ValueError: if an array has another number of rows, or pixels another range.

    Examples:
      >>> import tempfile, numpy as np
      >>> from jaxlrp import runs
      >>> images, scores = np.zeros((4, 8, 8, 3), np.float32), np.eye(4)[:, :2]
      >>> rows = {"relevance": images, "scores": np.float32(scores)}
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     run = runs.attribute(dict, rows, folder + "/run", batch_size=2)
      ...     runs.export_virelay(
      ...         run,
      ...         folder + "/project",
      ...         images=images,
      ...         labels=[0, 1, 0, 1],
      ...         predictions=run["scores"],
      ...         names=["cat", "dog"],
      ...     ).name
      'project.yaml'
    """
    if not run.complete:
        raise errors.RunError(f"run: got {run!r}, expected a complete one")
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy: got {strategy!r}, expected one of {STRATEGIES}")
    rows = run.rows
    given = {"images": images, "labels": labels, "predictions": predictions}
    for name, array in given.items():
        if len(array) != rows:
            raise ValueError(f"{name}: got {len(array)} rows, expected {rows}")
    labels = np.asarray(labels)
    if labels.min() < 0 or labels.max() >= len(names):
        raise ValueError(f"labels: got {labels.max()}, expected below {len(names)}")
    folder = pathlib.Path(os.fspath(out))
    folder.mkdir(parents=True, exist_ok=True)
    of_row, scale = run[relevance], _to_bytes(images, run.block)
    with _hdf5(folder / "input.h5") as file:
        _fill(file, "data", images, run.block, scale)
        file["label"] = labels.astype(np.uint16)
    with _hdf5(folder / "attribution.h5") as file:
        _fill(file, "attribution", of_row, run.block)
        file["prediction"] = np.asarray(predictions[:], np.float32)
        file["label"] = labels.astype(np.uint16)
        file["index"] = np.arange(len(labels), dtype=np.uint32)
    if clusters:
        with _hdf5(folder / "analysis.h5") as file:
            for c, found in clusters.items():
                _fill_analysis(file.create_group(f"{c:08d}"), found)
    label_map = [
        {"index": i, "word_net_id": f"{i:08d}", "name": name}
        for i, name in enumerate(names)
    ]
    _files.write(folder / "label-map.json", json.dumps(label_map, indent=1).encode())
    height, width = images.shape[1:3]
    content: dict[str, Any] = {
        "name": project,
        "model": model,
        "label_map": "label-map.json",
        "dataset": {
            "name": project,
            "type": "hdf5",
            "path": "input.h5",
            "input_width": int(width),
            "input_height": int(height),
            "up_sampling_method": "none",
            "down_sampling_method": "none",
        },
        "attributions": {
            "attribution_method": method,
            "attribution_strategy": strategy,
            "sources": ["attribution.h5"],
        },
        "analyses": [{"analysis_method": "SpRAy", "sources": ["analysis.h5"]}]
        if clusters
        else [],
    }
    # JSON is YAML.
    path = folder / "project.yaml"
    _files.write(path, json.dumps({"project": content}, indent=1).encode())
    return path


@contextlib.contextmanager
def _hdf5(path: pathlib.Path) -> Iterator[Any]:
    """A new file of HDF5, which takes the old one's place when it is whole."""
    import h5py  # pyright: ignore[reportMissingImports]

    part = path.with_name(f".{path.name}.part")
    try:
        with h5py.File(part, "w") as file:
            yield file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _fill(file: Any, name: str, array: Any, block: int, scale: Any = None) -> None:
    """Images, channels first, some rows at a time.

    Args:
      file: of HDF5.
      name: the array's in it.
      array: (rows, height, width) or (rows, height, width, channels).
      block: rows at a time.
      scale: a function to uint8, or None for float32.
    """
    shape = array.shape if len(array.shape) == 4 else (*array.shape, 1)
    if len(shape) != 4:
        raise ValueError(
            f"{name}: got shape {array.shape}, expected (rows, height, width, channels)"
        )
    rows, height, width, channels = shape
    out = file.create_dataset(
        name,
        (rows, channels, height, width),
        "float32" if scale is None else "uint8",
        chunks=(1, channels, height, width),
        compression="gzip",
    )
    for start, values in _by_block(array, block):
        values = values if scale is None else scale(values)
        values = values.reshape(len(values), height, width, channels)
        out[start : start + len(values)] = values.transpose(0, 3, 1, 2)


def _by_block(array: Any, block: int) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(array), block):
        yield start, np.asarray(array[start : start + block])


def _to_bytes(images: Any, block: int) -> Callable[[np.ndarray], np.ndarray]:
    """Pixels as uint8: of floats ViRelAy guesses the range, for each image anew."""
    if images.dtype == np.uint8:
        return lambda values: values
    ends = [(x.min(), x.max()) for _, x in _by_block(images, block)]
    low, high = min(e[0] for e in ends), max(e[1] for e in ends)
    if not (-1 <= low and high <= 1):
        raise ValueError(
            f"images: got {images.dtype} from {low:g} to {high:g}, expected uint8, or "
            "floats in [0, 1] or [-1, 1]"
        )
    least, factor = (0.0, 255.0) if low >= 0 else (-1.0, 127.5)
    return lambda values: ((values - least) * factor).round().astype(np.uint8)


def _fill_analysis(group: Any, found: Clusters) -> None:
    group["index"] = found.rows.astype(np.uint32)
    embedding = group.create_group("embedding")
    embedding["spectral"] = found.embedding.astype(np.float32)
    embedding["spectral"].attrs["eigenvalue"] = found.eigenvalues.astype(np.float32)
    # All categories have to have the same names.
    clustering = group.create_group("cluster")
    clustering["spray"] = found.labels
    clustering["spray"].attrs["embedding"] = "spectral"
    clustering["spray"].attrs["k"] = len(found.sizes)
    clustering["spray"].attrs["index"] = np.arange(found.embedding.shape[1])


def export_crp(
    run: Attributions,
    out: str | os.PathLike[str],
    reductions: Mapping[str, str],
    *,
    folder: str = "RelMax_sum_unnormed",
) -> list[pathlib.Path]:
    """Writes the highest rows of channels as zennit-crp keeps them.

    For each layer `<folder>/<layer>_data.npy`, the rows' numbers, and `_rel.npy`, their
    scores, both (k, channels) in descending order, and `_rf.npy`, the place in the
    channel where each score lies, where the reduction has `places`. zennit-crp expects
    40 rows, `Top(..., k=40)`.

    Args:
      run: a complete run.
      out: the folder, which is made.
      reductions: by layer the name of the reduction, a `Top`.
      folder: what zennit-crp calls the folder: of relevances or activations (RelMax,
        ActMax), their sum or maximum, normed or unnormed.

    Returns:
      The files.

    Raises:
      RunError: if the run is not complete, or a channel has fewer rows than k.
      ValueError: if a reduction is no `Top`.

    Examples:
      >>> import tempfile, numpy as np
      >>> from jaxlrp import runs
      >>> channels = {"conv1": np.array([[1.0, 9.0], [5.0, 2.0], [3.0, 4.0]])}
      >>> top = {"conv1": runs.Top("conv1", k=2)}
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     run = runs.attribute(
      ...         dict, channels, folder + "/run", batch_size=3, reduce=top
      ...     )
      ...     files = runs.export_crp(run, folder + "/crp", {"conv1": "conv1"})
      ...     [path.name for path in files]
      ['conv1_data.npy', 'conv1_rel.npy']
    """
    written = []
    for layer, name in reductions.items():
        found = run.reduced(name)
        if not {"indices", "scores"} <= found.keys():
            raise ValueError(f"reductions: got {name!r}, expected a Top")
        if (found["indices"] < 0).any():
            raise errors.RunError(f"run: {name!r} has fewer rows than places")
        arrays = {"data": found["indices"], "rel": found["scores"].astype(np.float32)}
        if "places" in found:
            arrays["rf"] = found["places"]
        for kind, array in arrays.items():
            path = pathlib.Path(os.fspath(out)) / folder / f"{layer}_{kind}.npy"
            buffer = io.BytesIO()
            np.save(buffer, array.T)
            _files.write(path, buffer.getvalue(), folders=True)
            written.append(path)
    return written
