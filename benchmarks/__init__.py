"""Speed and memory of the operators against every peer at hand: ``python -m benchmarks``."""
