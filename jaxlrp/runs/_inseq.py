"""Runs of texts in the format of inseq: JSON, its arrays as safetensors."""

from __future__ import annotations

import base64
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from jaxlrp import _files, errors
from jaxlrp.runs._attributions import Attributions

Token: TypeAlias = "str | tuple[str, int]"
"""A token's text, or that and its number."""


def export_inseq(
    run: Attributions,
    path: str | os.PathLike[str],
    *,
    target: Sequence[Sequence[Token]],
    source: Sequence[Sequence[Token]] | None = None,
    relevance: str = "relevance",
    scores: Mapping[str, str] | None = None,
    info: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Writes a file that inseq opens: `FeatureAttributionOutput.load(path)`.

    The run's array has a relevance for each token of the input and each token that is
    explained, (rows, explained, tokens), as `jaxlrp.lrp_each` gives them, or without
    the middle axis where one is. What lies behind a row's tokens is padding. In inseq's
    terms it is a coarse attribution, tokens first:

    - without `source`, of a language model: `target_attributions` of a whole text whose
      last tokens are explained, each by those before it.
    - with `source`: `source_attributions`. All of `target` is explained by all of
      `source`, as a translation, or a label, `target=[["positive"], ...]`.

    Needs safetensors: `pip install jaxlrp[inseq]`.

    Args:
      run: a complete run.
      path: the file, `.json`.
      target: for each row the tokens of the whole text, or with `source` those that are
        explained: each a string, or a string and the token's number, -1 if not given.
      source: for each row the tokens that explain.
      relevance: the name of the run's array.
      scores: what inseq calls a score of each explained token, as `"logit"`, and the
        name of the run's array of it, (rows, explained) or (rows,).
      info: more of what inseq keeps about all texts, as `"model_name"`.

    Returns:
      The path of the file.

    Raises:
      RunError: if the run is not complete.
      ValueError: if an array and the tokens have different shapes, or a token has
        relevance for one that stands before it.

    Examples:
      >>> import tempfile, numpy as np, jaxlrp
      >>> ids = np.array([[1, 2, 3], [4, 5, 6]], np.int32)
      >>> explain = lambda ids: {"relevance": ids * 0.5}
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     run = jaxlrp.runs.attribute(explain, ids, folder + "/run", batch_size=2)
      ...     jaxlrp.runs.export_inseq(
      ...         run,
      ...         folder + "/texts.json",
      ...         source=[["not", "bad", "!"], ["so", "very", "dull"]],
      ...         target=[["positive"], ["negative"]],
      ...     ).name
      'texts.json'
    """
    count = run.rows
    if not run.complete or count is None:
        raise errors.RunError(f"run: got {run!r}, expected a complete one")
    for name, tokens in {"target": target, "source": source}.items():
        if tokens is not None and len(tokens) != count:
            raise ValueError(f"{name}: got {len(tokens)} rows, expected {count}")
    sequences = []
    for start in range(0, count, run.block):
        rows = slice(start, min(start + run.block, count))
        values = np.asarray(run[relevance][rows], np.float32)
        if values.ndim == 2:
            values = values[:, None]
        if values.ndim != 3:
            raise ValueError(
                f"relevance: got {relevance!r} with {values.ndim} axes, expected "
                "(rows, explained, tokens) or (rows, tokens)"
            )
        steps = {
            name: np.asarray(run[array][rows], np.float32).reshape(len(values), -1)
            for name, array in (scores or {}).items()
        }
        for i, of_row in enumerate(values):
            row = start + i
            given = None if source is None else source[row]
            of_step = {name: array[i] for name, array in steps.items()}
            sequences.append(_sequence(row, of_row, target[row], given, of_step))
    content = {
        "info": {
            "attribution_method": "lrp",
            "input_texts": [_text(s["source"]) for s in sequences],
            "generated_texts": [_text(s["target"]) for s in sequences],
            **(info or {}),
        },
        "sequence_attributions": [
            _instance("data.attribution", "CoarseFeatureAttributionSequenceOutput", s)
            for s in sequences
        ],
        "step_attributions": None,
    }
    whole = _instance("data.attribution", "FeatureAttributionOutput", content)
    place = pathlib.Path(os.fspath(path))
    text = json.dumps(whole, indent=1, sort_keys=True)
    _files.write(place, text.encode(), folders=True)
    return place


def _sequence(
    row: int,
    relevance: np.ndarray,
    target: Sequence[Token],
    source: Sequence[Token] | None,
    scores: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """One row, as inseq keeps it.

    Args:
      row: its number, for messages.
      relevance: (explained, tokens), both padded.
      target: the tokens of the whole text, or those that are explained.
      source: those that explain, or None.
      scores: by name (explained,).
    """
    by = target if source is None else source
    most, width = relevance.shape
    explained = min(most, len(target)) if source is None else len(target)
    if len(by) > width or explained > most or explained == 0:
        raise ValueError(
            f"{'target' if source is None else 'source'}: row {row} has {len(by)} "
            f"tokens, {explained} explained, expected at most {width} and {most}, as "
            "the run's relevance"
        )
    matrix = relevance[:explained, : len(by)].T
    first = 0 if source is not None else len(target) - explained
    if source is None:
        later = np.arange(len(by))[:, None] >= first + np.arange(explained)
        if (matrix[later] != 0).any():
            raise ValueError(
                f"relevance: in row {row} a token has relevance for one that does not "
                "come after it, expected none of the explained tokens and those after"
            )
        # inseq's sign for what was not there yet.
        matrix = np.where(later, np.float32(math.nan), matrix)
    for name, array in scores.items():
        if len(array) < explained:
            raise ValueError(f"scores: {name!r} has {len(array)}, expected {explained}")
    tokens = [_token(token) for token in target]
    return {
        "source": tokens[:first] if source is None else [_token(t) for t in source],
        "target": tokens,
        "source_attributions": None if source is None else _tensor(matrix),
        "target_attributions": _tensor(matrix) if source is None else None,
        "step_scores": {n: _tensor(array[:explained]) for n, array in scores.items()},
        "sequence_scores": {},
        "attr_pos_start": first,
        "attr_pos_end": len(target),
    }


def _token(token: Token) -> dict[str, Any]:
    text, number = (token, -1) if isinstance(token, str) else token
    return _instance("utils.typing", "TokenWithId", {"token": text, "id": int(number)})


def _text(tokens: Sequence[Mapping[str, Any]]) -> str:
    return "".join(token["attributes"]["token"] for token in tokens)


def _instance(module: str, name: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """An object of a class of inseq's, as it writes them."""
    return {
        "__instance_type__": [f"inseq.{module}", name],
        "attributes": dict(attributes),
    }


def _tensor(array: np.ndarray) -> str:
    import safetensors.numpy  # pyright: ignore[reportMissingImports]

    content = safetensors.numpy.save({"attribution": np.ascontiguousarray(array)})
    return base64.b64encode(content).decode("ascii")
