"""dcnv3."""

from .aggregation import SHAPES, dcn

CASES = [dcn(3, **shape) for shape in SHAPES]
