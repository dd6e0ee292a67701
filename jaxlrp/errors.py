"""The errors and warnings that jaxlrp raises of its own."""

from __future__ import annotations


class JaxlrpError(Exception):
    """The base of jaxlrp's own errors."""


class UnexplainedPrimitiveError(JaxlrpError, NotImplementedError):
    """Relevance meets a primitive without a rule, or one that the book refuses."""


class RuleError(JaxlrpError, TypeError):
    """A rule returned something of the wrong structure, shape or dtype."""


class IndependentArgumentWarning(UserWarning):
    """The output does not depend on an attributed argument; its relevance is zero."""


class UnreadSoftmaxWarning(UserWarning):
    """An exponential is divided by something made of it, and is not read as a softmax.

    The divisor is held constant, which is not what softmax's relevance is.
    """


class BoundsWarning(UserWarning):
    """The bounds of a z-box rule do not contain the data."""


class RelevanceWarning(UserWarning):
    """The relevance is a hundred times as large as the score that it explains, or NaN.

    `jaxlrp.check` says where it grows.
    """
