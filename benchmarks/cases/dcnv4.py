"""dcnv4."""

from .aggregation import SHAPES, dcn

CASES = [dcn(4, **shape) for shape in SHAPES]
