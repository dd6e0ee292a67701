"""Baselines that LRP is compared with, in the form of `jaxlrp.lrp`.

`attributions = attribution.integrated_gradients(apply_fn)(params, x)`
"""

from jaxlrp.attribution.attention import (
    attention_rollout,
    gradient_attention_rollout,
    raw_attention,
    transformer_attribution,
)
from jaxlrp.attribution.cam import grad_cam
from jaxlrp.attribution.fullgrad import FullGrad, fullgrad
from jaxlrp.attribution.gradients import gradient, gradient_x_input, saliency
from jaxlrp.attribution.guided import deconvnet, guided_backprop
from jaxlrp.attribution.paths import expected_gradients, integrated_gradients
from jaxlrp.attribution.positions import positional
from jaxlrp.attribution.references import deep_lift
from jaxlrp.attribution.relevancy import attention_relevancy
from jaxlrp.attribution.smoothing import smoothgrad
from jaxlrp.attribution.windows import occlusion

__all__ = [
    "FullGrad",
    "attention_relevancy",
    "attention_rollout",
    "deconvnet",
    "deep_lift",
    "expected_gradients",
    "fullgrad",
    "grad_cam",
    "gradient",
    "gradient_attention_rollout",
    "gradient_x_input",
    "guided_backprop",
    "integrated_gradients",
    "occlusion",
    "positional",
    "raw_attention",
    "saliency",
    "smoothgrad",
    "transformer_attribution",
]
