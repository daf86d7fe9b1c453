"""Parts of a detector's training; importing this package needs MMDetection."""

from mmdcn.models.task_modules.ohem_sampler import OHEMSampler

__all__ = ["OHEMSampler"]
