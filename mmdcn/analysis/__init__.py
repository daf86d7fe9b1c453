"""Size and cost of models."""
