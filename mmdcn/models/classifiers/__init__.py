"""Classification with MMEngine alone; with MMPretrain, take its ``ImageClassifier``."""

from mmdcn.models.classifiers.pooled import PooledClassifier

__all__ = ["PooledClassifier"]
