"""The errors and warnings that jaxlrp raises of its own."""

from __future__ import annotations


class JaxlrpError(Exception):
    """The base of jaxlrp's own errors."""


class UnexplainedPrimitiveError(JaxlrpError, NotImplementedError):
    """Relevance meets a primitive without a rule, or one that the book refuses."""


class RuleError(JaxlrpError, TypeError):
    """A rule returned something of the wrong structure, shape or dtype."""


class RunError(JaxlrpError):
    """A run over a dataset cannot begin, go on, or be read."""


class OtherRunError(RunError, ValueError):
    """The folder holds another run: other weights, rules, data, versions or options."""


class BusyError(RunError):
    """Another process works on the same part of a run."""


class StoreError(RunError, OSError):
    """A run's file cannot be written, or is broken."""


class IndependentArgumentWarning(UserWarning):
    """The output does not depend on an attributed argument; its relevance is zero."""


class UnreadSoftmaxWarning(UserWarning):
    """An exponential is divided by something made of it, and is not read as a softmax.

    The divisor is held constant, which is not what softmax's relevance is.
    """


class ArgumentWarning(UserWarning):
    """An argument that comes later is given by keyword: another one is attributed."""


class TargetWarning(UserWarning):
    """What is explained is hardly what was meant: examples for classes, probabilities.

    `jaxlrp.check` says so of any target.
    """


class TrainingWarning(UserWarning):
    """The function is that of training: statistics of the batch, or dropout.

    `jaxlrp.plan` and `jaxlrp.check` say so as well.
    """


class BoundsWarning(UserWarning):
    """The bounds of a z-box rule do not contain the data."""


class RelevanceWarning(UserWarning):
    """The relevance is a hundred times as large as the score that it explains, or NaN.

    `jaxlrp.check` says where it grows.
    """
