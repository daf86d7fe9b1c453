"""What networks look at (torch alone), and what they cost (:mod:`mmdcn.analysis.flops`)."""

from .effective import (
    EffectiveSampling,
    compose,
    contribution_squares,
    effective_sampling,
    mean_receptive_field,
    receptive_field,
)
from .recording import Sampling, map_to_image, record
from .saliency import SaliencyRegion, saliency_region

__all__ = [
    "EffectiveSampling",
    "SaliencyRegion",
    "Sampling",
    "compose",
    "contribution_squares",
    "effective_sampling",
    "map_to_image",
    "mean_receptive_field",
    "receptive_field",
    "record",
    "saliency_region",
]
