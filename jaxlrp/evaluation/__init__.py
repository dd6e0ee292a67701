"""How good is an explanation? Measures of any relevance, not only of this package's.

Faithfulness (`flipping`, `abpc`, `insertion`, ...), localisation, answers among tokens,
sanity checks, robustness, complexity; `protocols` has published evaluations with their
settings. All are functions of one example and work under `jax.jit` and `jax.vmap`.

score = evaluation.logit(lambda x: apply_fn(params, x), target)
curve = evaluation.flipping(score, x, relevance, order="morf")
"""

from jaxlrp.evaluation import baselines, protocols
from jaxlrp.evaluation.complexity import entropy, sparseness
from jaxlrp.evaluation.convergence import csc
from jaxlrp.evaluation.curves import (
    Curve,
    abpc,
    area,
    comprehensiveness,
    deletion,
    drop,
    flipping,
    insertion,
    sufficiency,
)
from jaxlrp.evaluation.localisation import (
    average_precision,
    confusion,
    mean_iou,
    pixel_accuracy,
    pointing_game,
    relevance_mass,
    relevance_rank,
    segment,
)
from jaxlrp.evaluation.randomisation import (
    compare,
    layer_names,
    logit_swap,
    parameter_randomisation,
    random_logit,
    randomise,
)
from jaxlrp.evaluation.robustness import (
    continuity,
    infidelity,
    local_lipschitz,
    max_sensitivity,
    neighbours,
    removals,
    translations,
)
from jaxlrp.evaluation.scores import accuracy, logit, probability
from jaxlrp.evaluation.similarity import cosine, spearman, ssim
from jaxlrp.evaluation.tokens import top_k_accuracy, top_k_f1, top_k_iou
from jaxlrp.evaluation.units import pool

__all__ = [
    "Curve",
    "abpc",
    "accuracy",
    "area",
    "average_precision",
    "baselines",
    "compare",
    "comprehensiveness",
    "confusion",
    "continuity",
    "cosine",
    "csc",
    "deletion",
    "drop",
    "entropy",
    "flipping",
    "infidelity",
    "insertion",
    "layer_names",
    "local_lipschitz",
    "logit",
    "logit_swap",
    "max_sensitivity",
    "mean_iou",
    "neighbours",
    "parameter_randomisation",
    "pixel_accuracy",
    "pointing_game",
    "pool",
    "probability",
    "protocols",
    "random_logit",
    "randomise",
    "relevance_mass",
    "relevance_rank",
    "removals",
    "segment",
    "sparseness",
    "spearman",
    "ssim",
    "sufficiency",
    "top_k_accuracy",
    "top_k_f1",
    "top_k_iou",
    "translations",
]
