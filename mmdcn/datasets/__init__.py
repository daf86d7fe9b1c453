"""Data sets: what the tools check before a run."""
