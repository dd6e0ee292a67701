"""The errors and warnings that jaxlrp raises of its own."""

from __future__ import annotations

__all__ = [
    "ArgumentWarning",
    "BoundsWarning",
    "BusyError",
    "ConstantsWarning",
    "CurvatureWarning",
    "IndependentArgumentWarning",
    "JaxlrpError",
    "OtherRunError",
    "PositionsWarning",
    "RelevanceWarning",
    "RuleError",
    "RunError",
    "StoreError",
    "TargetWarning",
    "TrainingWarning",
    "UnexplainedPrimitiveError",
    "UnreadSoftmaxWarning",
]


class JaxlrpError(Exception):
    """The base of jaxlrp's own errors.

    Examples:
      >>> from jaxlrp import errors
      >>> issubclass(errors.UnexplainedPrimitiveError, errors.JaxlrpError)
      True
    """


class UnexplainedPrimitiveError(JaxlrpError, NotImplementedError):
    """Relevance meets a primitive without a rule, or one that the book refuses.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> host = lambda x: jax.pure_callback(lambda v: v, x, x)
      >>> try:
      ...     jaxlrp.lrp(host)(jnp.ones(2))
      ... except jaxlrp.errors.UnexplainedPrimitiveError as error:
      ...     print(str(error)[:25])
      primitive 'pure_callback'
    """


class RuleError(JaxlrpError, TypeError):
    """A rule returned something of the wrong structure, shape or dtype.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> double = jaxlrp.custom_lrp(lambda x: 2 * x)
      >>> double.deflrp(lambda x: (2 * x, ()), lambda kept, R: (R, R))  # one too many
      >>> try:
      ...     jaxlrp.lrp(double)(jnp.ones(2))
      ... except jaxlrp.errors.RuleError:
      ...     print("refused")
      refused
    """


class RunError(JaxlrpError):
    """A run over a dataset cannot begin, go on, or be read.

    Examples:
      >>> import tempfile, numpy as np
      >>> from jaxlrp import errors, runs
      >>> x = np.ones((4, 2), np.float32)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     half = runs.attribute(
      ...         lambda b: {"r": b}, x, folder, batch_size=1, block=1,
      ...         shard=(0, 2), reduce={"mean": runs.Moments("r")})
      ...     try:
      ...         half.reduced("mean")
      ...     except errors.RunError as error:
      ...         print("partial=True" in str(error))
      True
    """


class OtherRunError(RunError, ValueError):
    """The folder holds another run: other weights, rules, data, versions or options.

    Examples:
      >>> import tempfile, numpy as np
      >>> from jaxlrp import errors, runs
      >>> x = np.ones((4, 2), np.float32)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     _ = runs.attribute(lambda b: {"r": b}, x, folder, batch_size=2)
      ...     try:
      ...         runs.attribute(lambda b: {"r": 2 * b}, x, folder, batch_size=2)
      ...     except errors.OtherRunError as error:
      ...         print("`program` differs" in str(error))
      True
    """


class BusyError(RunError):
    """Another process works on the same part of a run.

    Examples:
      >>> from jaxlrp import errors
      >>> issubclass(errors.BusyError, errors.RunError)
      True
    """


class StoreError(RunError, OSError):
    """A run's file cannot be written, or is broken.

    Examples:
      >>> from jaxlrp import errors
      >>> issubclass(errors.StoreError, OSError)
      True
    """


class IndependentArgumentWarning(UserWarning):
    """The output does not depend on an attributed argument; its relevance is zero.

    Examples:
      >>> import warnings, jax, jax.numpy as jnp, jaxlrp
      >>> f = lambda x, y: 2.0 * y
      >>> with warnings.catch_warnings(record=True) as seen:
      ...     warnings.simplefilter("always")
      ...     _ = jaxlrp.lrp(f, argnums=0)(jnp.ones(2), jnp.ones(2))
      >>> [w.category.__name__ for w in seen]
      ['IndependentArgumentWarning']
    """


class UnreadSoftmaxWarning(UserWarning):
    """An exponential is divided by something made of it, and is not read as a softmax.

    The divisor is held constant, which is not what softmax's relevance is.

    Examples:
      >>> import warnings, jax, jax.numpy as jnp, jaxlrp
      >>> f = lambda x: jnp.exp(x) / (jnp.exp(x).sum() + x.sum())
      >>> with warnings.catch_warnings(record=True) as seen:
      ...     warnings.simplefilter("always")
      ...     _ = jaxlrp.lrp(f)(jnp.ones(2))
      >>> [w.category.__name__ for w in seen]
      ['UnreadSoftmaxWarning']
    """


class ArgumentWarning(UserWarning):
    """An argument that comes later is given by keyword: another one is attributed.

    Examples:
      >>> import warnings, jax, jax.numpy as jnp, jaxlrp
      >>> f = lambda w, x: x * w
      >>> with warnings.catch_warnings(record=True) as seen:
      ...     warnings.simplefilter("always")
      ...     _ = jaxlrp.lrp(f)(jnp.ones(2), x=jnp.ones(2))
      >>> [w.category.__name__ for w in seen]
      ['ArgumentWarning']
    """


class TargetWarning(UserWarning):
    """What is explained is hardly what was meant: examples for classes, probabilities.

    `jaxlrp.check` says so of any target.

    Examples:
      >>> import warnings, jax, jax.numpy as jnp, jaxlrp
      >>> f = lambda x: jax.nn.softmax(x @ jnp.eye(2))
      >>> with warnings.catch_warnings(record=True) as seen:
      ...     warnings.simplefilter("always")
      ...     _ = jaxlrp.lrp(f)(jnp.ones(2))
      >>> [w.category.__name__ for w in seen]
      ['TargetWarning']
    """


class TrainingWarning(UserWarning):
    """The function is that of training: statistics of the batch, or dropout.

    `jaxlrp.plan` and `jaxlrp.check` say so as well.

    Examples:
      >>> import warnings, jax, jax.numpy as jnp, jaxlrp
      >>> f = lambda key, x: x @ jnp.eye(2) * jax.random.bernoulli(key, 0.5, (2,))
      >>> with warnings.catch_warnings(record=True) as seen:
      ...     warnings.simplefilter("always")
      ...     _ = jaxlrp.lrp(f)(jax.random.key(0), jnp.ones(2))
      >>> [w.category.__name__ for w in seen]
      ['TrainingWarning']
    """


class BoundsWarning(UserWarning):
    """The bounds of a z-box rule do not contain the data.

    Examples:
      >>> import warnings, jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> box = composites.Uniform(rules.ZBox(0.0, 1.0))
      >>> with warnings.catch_warnings(record=True) as seen:
      ...     warnings.simplefilter("always")
      ...     _ = jaxlrp.lrp(lambda x: x @ jnp.eye(2), box)(jnp.array([2.0, 3.0]))
      >>> [w.category.__name__ for w in seen]
      ['BoundsWarning']
    """


class RelevanceWarning(UserWarning):
    """The relevance is a hundred times as large as the score that it explains, or NaN.

    `jaxlrp.check` says where it grows. Interactions that do not add up are told of too.

    Examples:
      >>> import warnings, jax, jax.numpy as jnp, jaxlrp
      >>> f = lambda x: x @ jnp.array([[1.0], [-1.0]])
      >>> with warnings.catch_warnings(record=True) as seen:
      ...     warnings.simplefilter("always")
      ...     _ = jaxlrp.lrp(f)(jnp.array([1.0, 1.001]))
      >>> [w.category.__name__ for w in seen]
      ['RelevanceWarning']
    """


class ConstantsWarning(UserWarning):
    """A function closes over large arrays, which are compiled into each program.

    Given as arguments they are not.

    Examples:
      >>> import warnings, jax.numpy as jnp, jaxlrp
      >>> w = jnp.ones((4096, 4096))
      >>> with warnings.catch_warnings(record=True) as seen:
      ...     warnings.simplefilter("always")
      ...     _ = jaxlrp.patching.sites(lambda x: x @ w)(jnp.ones(4096))
      >>> [w.category.__name__ for w in seen]
      ['ConstantsWarning']
    """


class PositionsWarning(UserWarning):
    """Positions could not be followed through a program by `attribution.positional`.

    Examples:
      >>> import warnings, jax, jax.numpy as jnp
      >>> from jaxlrp import attribution
      >>> f = lambda x: jnp.fft.fft(x + jnp.arange(3.0)).real.sum()
      >>> with warnings.catch_warnings(record=True) as seen:
      ...     warnings.simplefilter("always")
      ...     _ = attribution.positional(f)(jnp.ones(3))
      >>> [w.category.__name__ for w in seen]
      ['PositionsWarning']
    """


class CurvatureWarning(UserWarning):
    """Second derivatives do not see all of a function: its input makes choices in it.

    Examples:
      >>> import warnings, jax.numpy as jnp
      >>> from jaxlrp import interactions
      >>> f = lambda x: (x[0] ** 2 * jnp.sign(x[1]))
      >>> with warnings.catch_warnings(record=True) as seen:
      ...     warnings.simplefilter("always")
      ...     _ = interactions.integrated_hessians(f)(jnp.array([1.0, 2.0]))
      >>> [w.category.__name__ for w in seen]
      ['CurvatureWarning']
    """
