"""Published evaluations, with their settings and units.

Each function is of one example: a function of the input, the input, its relevance, a
class. It returns a dictionary of curves and numbers, a pytree. Over a dataset,
`jax.vmap` and the mean over the first axis give what the paper reports: means of
accuracies are accuracies, and areas are linear in the scores.

| protocol | unit | removed | baseline | score | number |
| --- | --- | --- | --- | --- | --- |
| `dynamiclrp` | 1,024 pixels, or 4 patches of 16 by 16 | all, in 49 steps | blur, 51, 20 | accuracy | 4 times the mean gap |
| `attnlrp` | pixels, patches or tokens | all | must be given | logit | the mean gap |
| `chefer` | pixels | 10, 20, ..., 90 % | black | accuracy | the mean over the range |
| `eraser` | tokens | 1, 5, 10, 20, 50 % | must be given | probability | the mean drop |
| `rise` | a row's number of pixels | all | zero; blur, 11, 5 | probability | the area |
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxlrp._arguments import flag
from jaxlrp.attribution import _checks as checks
from jaxlrp.evaluation import _checks, baselines, curves, units
from jaxlrp.evaluation.curves import Baseline, Steps
from jaxlrp.evaluation.scores import KINDS, accuracy, probability

__all__ = ["attnlrp", "chefer", "dynamiclrp", "eraser", "rise"]

DYNAMICLRP_UNITS = 4
"""Its curves' horizontal axis counts four for each step."""


def dynamiclrp(
    f: Callable[[Any], Array],
    x: Any,
    relevance: Any,
    target: Any,
    *,
    patch: int | None = None,
    step: int | None = None,
    magnitude: bool = True,
    kernel: int = 51,
    sigma: float = 20.0,
    score: str = "accuracy",
    channel_axis: int = -1,
    chunk: int = 8,
) -> dict[str, Any]:
    """dynamicLRP's ABPC, comprehensiveness and sufficiency of an image.

        abpc = 4 (A(LeRF) - A(MoRF)),    comprehensiveness = 4 (s_0 - A(MoRF)),
        sufficiency = 4 (s_0 - A(LeRF))

    with the mean height `A` of a curve and the score `s_0` of the whole image. The
    authors' horizontal axis counts four for each step, whatever is removed, and the
    area is divided by the number of steps: a published 1.46 is a mean gap of 0.365 in
    accuracy. What a last step of fewer than `step` units would remove is kept.

    Args:
      f: from one image to its logits.
      x: the image, with the channels along `channel_axis`.
      relevance: of the image's shape.
      target: the class: the label.
      patch: the side of a patch, 16 in the paper, whose relevance is the largest in it;
        None for pixels.
      step: how many units a step removes: 1,024 pixels or 4 patches by default, which
        are 49 steps for an image of 224 by 224.
      magnitude: whether the relevance's absolute values are summed over the channels,
        as the authors do for their own method, or its values.
      kernel: of the Gaussian blur that replaces what is removed.
      sigma: of the blur, in pixels.
      score: `"accuracy"`, as published, `"logit"` or `"probability"`.
      channel_axis: where the image has its channels.
      chunk: how many images are evaluated at once.

    Returns:
      `morf` and `lerf`, curves, and `abpc`, `comprehensiveness`, `sufficiency`.

    Raises:
      TypeError: if `x` or `relevance` is no array of real numbers, or `step`, `kernel`
        or `chunk` is no int.
      ValueError: if `x` is no image, `relevance` does not fit `x`, `step` or `chunk` is
        below 1, `kernel` is not an odd number above 0, `sigma` is not above 0, `score`
        is none of its names, or `channel_axis` is no axis of `x`.

    Source: dynamicLRP, its published evaluation code, `src/experiments/util.py`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp.evaluation import protocols
      >>> x = jnp.zeros((4, 4, 1)).at[0, 0].set(1.0)
      >>> f = lambda x: jnp.stack([x[0, 0, 0], 0.5])
      >>> result = protocols.dynamiclrp(f, x, x, 0, step=1, kernel=3)
      >>> float(result["abpc"])
      3.75
    """
    flag("magnitude", magnitude)
    image, (height, width) = _image(x, channel_axis)
    values = _checks.real("relevance", relevance)
    values = _pixels(jnp.abs(values) if magnitude else values, channel_axis)
    if patch is not None:
        side = [patch] * values.ndim
        side[channel_axis] = 1
        values = units.pool(values, side, "max")
    size = (1024 if patch is None else 4) if step is None else step
    count = values.size // checks.natural("step", size)
    if not count:
        raise ValueError(f"step: got {size}, expected at most {values.size}, all units")
    _checks.one_of("score", score, KINDS)
    pair = _both(
        KINDS[score](f, target),
        image,
        values,
        baselines.blur(image, kernel, sigma, (height, width)),
        [Fraction(i * size, values.size) for i in range(count + 1)],
        None,
        chunk,
    )
    return pair | {
        "abpc": DYNAMICLRP_UNITS * curves.abpc(pair["morf"], pair["lerf"]),
        "comprehensiveness": DYNAMICLRP_UNITS * curves.drop(pair["morf"]),
        "sufficiency": DYNAMICLRP_UNITS * curves.drop(pair["lerf"]),
    }


def attnlrp(
    f: Callable[[Any], Array],
    x: Any,
    relevance: Any,
    target: Any,
    *,
    baseline: Baseline,
    steps: Steps = 10,
    where: Any = None,
    chunk: int = 8,
) -> dict[str, Any]:
    """AttnLRP's faithfulness: the area between the curves of the logit.

        abpc = A(LeRF) - A(MoRF)

    in units of the logit, which differ between models. The relevance keeps its sign.

    Args:
      f: from one example to its logits.
      x: an image, embeddings or token ids.
      relevance: one value for each unit, as for `flipping`.
      target: the class, or the next token.
      baseline: as for `flipping`.
      steps: as for `flipping`.
      where: as for `flipping`.
      chunk: as for `flipping`.

    Returns:
      `morf` and `lerf`, curves, and `abpc`.

    Raises:
      TypeError: if `x`, `relevance` or `baseline` is no array of real numbers, `steps`
        is neither an int nor fractions, `where` is not of booleans, or `chunk` is no
        int.
      ValueError: if `relevance` or `baseline` does not fit `x`, `steps` is below 1 or
        no ascending fractions in [0, 1], `where` has another shape, or `chunk` is below
        1.

    Source: Achtibat et al. 2024, "AttnLRP: attention-aware layer-wise relevance
    propagation for transformers".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp.evaluation import protocols
      >>> x = jnp.array([1.0, 3.0])
      >>> f = lambda x: x.sum()[None]
      >>> float(protocols.attnlrp(f, x, x, 0, baseline=0.0, steps=2)["abpc"])
      1.0
    """
    pair = _both(KINDS["logit"](f, target), x, relevance, baseline, steps, where, chunk)
    return pair | {"abpc": curves.abpc(pair["morf"], pair["lerf"])}


def chefer(
    f: Callable[[Any], Array],
    x: Any,
    relevance: Any,
    target: Any,
    *,
    black: Any = 0.0,
    channel_axis: int = -1,
    chunk: int = 8,
) -> dict[str, Any]:
    """Chefer's positive and negative perturbation of an image.

        positive = A(MoRF), low is good,    negative = A(LeRF), high is good

    for curves of the accuracy at 10, 20, ..., 90 % of the pixels. `A` is the mean
    height: the area over [0.1, 0.9], divided by 0.8. Times 100 it is in per cent.

    Args:
      f: from one image to its logits.
      x: the image, with the channels along `channel_axis`.
      relevance: of the image's shape, or with one channel.
      target: the class that is to stay the highest: the predicted one or the label.
      black: the value of a black pixel where `f` sees it. Pixels are set to zero
        *before* they are normalised: `-mean / std`.
      channel_axis: where the image has its channels.
      chunk: how many images are evaluated at once.

    Returns:
      `morf` and `lerf`, curves, and `positive` and `negative`.

    Raises:
      TypeError: if `f` is no function, `x` or `relevance` is no array of real numbers,
        `target` is no integer, or `chunk` is no int.
      ValueError: if `f` has no classes, `x` is no image, `relevance` does not fit `x`,
        `target` is no class of `f`, `channel_axis` is no axis of `x`, or `chunk` is
        below 1.

    Source: Chefer et al. 2021, "Transformer interpretability beyond attention
    visualization".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp.evaluation import protocols
      >>> x = jnp.zeros((10, 1, 1)).at[0].set(1.0)
      >>> f = lambda x: jnp.stack([x[0, 0, 0], 0.5])
      >>> result = protocols.chefer(f, x, x, 0)
      >>> float(result["positive"]), round(float(result["negative"]), 3)
      (0.0, 1.0)
    """
    image, _ = _image(x, channel_axis)
    values = _pixels(_checks.real("relevance", relevance), channel_axis)
    steps = [i / 10 for i in range(1, 10)]
    pair = _both(accuracy(f, target), image, values, black, steps, None, chunk)
    return pair | {
        "positive": curves.area(pair["morf"]),
        "negative": curves.area(pair["lerf"]),
    }


def eraser(
    f: Callable[[Any], Array],
    x: Any,
    relevance: Any,
    target: Any,
    *,
    baseline: Baseline,
    bins: Sequence[float] = curves.BINS,
    where: Any = None,
    chunk: int = 8,
) -> dict[str, Any]:
    """ERASER's comprehensiveness and sufficiency of tokens, on the probability.

    The formulas are those of `comprehensiveness` and `sufficiency`.

    Args:
      f: from one sequence to its logits.
      x: token ids, embeddings, or an attention mask.
      relevance: one value for each token, as for `flipping`.
      target: the class: the predicted one.
      baseline: as for `flipping`; for ids that of a mask or padding token, for an
        attention mask 0.
      bins: the fractions of the tokens.
      where: as for `flipping`: which are tokens, not padding.
      chunk: as for `flipping`.

    Returns:
      `comprehensiveness` and `sufficiency`.

    Raises:
      TypeError: if `f` is no function, `x`, `relevance` or `baseline` is no array of
        real numbers, `target` is no integer, `bins` has no fractions, `chunk` is no
        int, or `where` is not of booleans.
      ValueError: if `f` has no classes, `relevance` or `baseline` does not fit `x`,
        `target` is no class of `f`, `bins` is below 1 or no ascending fractions in [0,
        1], `where` has another shape, or `chunk` is below 1.

    Source: DeYoung et al. 2020, "ERASER: a benchmark to evaluate rationalized NLP
    models".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp.evaluation import protocols
      >>> ids = jnp.array([5, 7])
      >>> f = lambda ids: jnp.where(ids == 7, 100.0, 0.0)
      >>> relevance = jnp.array([0.0, 1.0])
      >>> result = protocols.eraser(f, ids, relevance, 1, baseline=0, bins=(0.5,))
      >>> {name: float(value) for name, value in result.items()}
      {'comprehensiveness': 0.5, 'sufficiency': 0.0}
    """
    given = {"baseline": baseline, "bins": bins, "where": where, "chunk": chunk}
    score = probability(f, target)
    return {
        "comprehensiveness": curves.comprehensiveness(score, x, relevance, **given),
        "sufficiency": curves.sufficiency(score, x, relevance, **given),
    }


def rise(
    f: Callable[[Any], Array],
    x: Any,
    relevance: Any,
    target: Any,
    *,
    step: int | None = None,
    black: Any = 0.0,
    kernel: int = 11,
    sigma: float = 5.0,
    channel_axis: int = -1,
    chunk: int = 8,
) -> dict[str, Any]:
    """RISE's deletion and insertion of an image, on the probability.

        deletion_auc = A(deletion), low is good,    insertion_auc = A(insertion), high

    Deletion begins with the image and ends with `black`; insertion begins with a
    blurred image. The authors' blur has zeros around the image, and so has this one;
    what a Gaussian has beyond the kernel they fold back into it.

    Args:
      f: from one image to its logits.
      x: the image, with the channels along `channel_axis`.
      relevance: of the image's shape, or with one channel.
      target: the class: the predicted one.
      step: how many pixels a step changes; by default those of one row of the image,
        224 in the paper. The last step changes what is left.
      black: the baseline of deletion.
      kernel: of the blur, the baseline of insertion.
      sigma: of the blur, in pixels.
      channel_axis: where the image has its channels.
      chunk: how many images are evaluated at once.

    Returns:
      `deletion` and `insertion`, curves, and `deletion_auc` and `insertion_auc`.

    Raises:
      TypeError: if `f` is no function, `x` or `relevance` is no array of real numbers,
        `target` is no integer, or `step`, `kernel` or `chunk` is no int.
      ValueError: if `f` has no classes, `x` is no image, `relevance` does not fit `x`,
        `target` is no class of `f`, `step` or `chunk` is below 1, `kernel` is not an
        odd number above 0, `sigma` is not above 0, or `channel_axis` is no axis of `x`.

    Source: Petsiuk et al. 2018, "RISE: randomized input sampling for explanation of
    black-box models".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp.evaluation import protocols
      >>> x = jnp.zeros((4, 4, 1)).at[0, 0].set(100.0)
      >>> f = lambda x: jnp.stack([x[0, 0, 0], 50.0])
      >>> result = protocols.rise(f, x, x, 0, step=1)
      >>> round(float(result["deletion_auc"]), 4)
      0.0312
    """
    image, axes = _image(x, channel_axis)
    values = _pixels(_checks.real("relevance", relevance), channel_axis)
    number = values.size
    size = checks.natural("step", image.shape[axes[1]] if step is None else step)
    counts = [*range(0, number, size), number]
    steps = [Fraction(count, number) for count in counts]
    score = probability(f, target)
    blurred = baselines.blur(image, kernel, sigma, axes, "zero")
    deletion = curves.deletion(
        score, image, values, baseline=black, steps=steps, chunk=chunk
    )
    insertion = curves.insertion(
        score, image, values, baseline=blurred, steps=steps, chunk=chunk
    )
    return {
        "deletion": deletion,
        "insertion": insertion,
        "deletion_auc": curves.area(deletion),
        "insertion_auc": curves.area(insertion),
    }


def _both(
    score: Any,
    x: Any,
    relevance: Any,
    baseline: Any,
    steps: Any,
    where: Any,
    chunk: int,
) -> dict[str, Any]:
    """Both curves, by name."""
    return {
        order: curves.flipping(
            score,
            x,
            relevance,
            baseline=baseline,
            order=order,
            steps=steps,
            where=where,
            chunk=chunk,
        )
        for order in curves.ORDERS
    }


def _image(x: Any, channel_axis: int) -> tuple[Array, tuple[int, ...]]:
    """An image, and the axes of its height and width."""
    image = _checks.array("x", x)
    if image.ndim != 3:
        raise ValueError(
            f"x: got shape {image.shape}, expected one image with three axes"
        )
    if not isinstance(channel_axis, int) or not -3 <= channel_axis < 3:
        raise ValueError(
            f"channel_axis: got {channel_axis!r}, expected an axis of an image"
        )
    return image, tuple(i for i in range(3) if i != channel_axis % 3)


def _pixels(relevance: Array, channel_axis: int) -> Array:
    """The sum over channels."""
    return relevance.sum(channel_axis, keepdims=True)
