"""Whether the heads of a model have as many classes as its data."""

from collections.abc import Iterator, Sequence

from torch import nn

from mmdcn.datasets.errors import DatasetError, some

# Heads that tell something else than the classes of objects.
OTHER_HEADS = ("rpn_head", "semantic_head")


def check_heads(model: nn.Module, classes: Sequence[str], field: str) -> None:
    """Compare ``num_classes`` of all heads with the classes of a data set.

    Args:
        model: A detector or segmentor, possibly wrapped for training or testing.
        classes: Of the data set.
        field: Where the data set stands in the config.

    Raises:
        DatasetError: A head has another number of classes.
    """
    wrong = [
        f"{name}.num_classes is {head.num_classes}"
        for name, head in _heads(model)
        if head.num_classes != len(classes)
    ]
    if wrong:
        raise DatasetError(
            f"{', '.join(wrong)}, but {field} has {len(classes)} classes: {some(list(classes))}"
        )


def _heads(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Heads that know classes, with their paths in the config."""
    for path, module in model.named_modules():
        parts = [part for part in path.split(".") if part != "module"]
        names = [part for part in parts if not part.isdigit()]
        if (
            names
            and names[-1].endswith("head")
            and not set(names) & set(OTHER_HEADS)
            and isinstance(getattr(module, "num_classes", None), int)
            and not getattr(module, "class_agnostic", False)
        ):
            yield "model" + "".join(_as_key(part) for part in parts), module


def _as_key(part: str) -> str:
    return f"[{part}]" if part.isdigit() else f".{part}"
