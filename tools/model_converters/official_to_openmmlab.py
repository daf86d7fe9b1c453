"""Convert a published checkpoint to the keys of a config's model.

Knows the detectors and segmentors of the official InternImage and DCNv4 repositories (MMDetection
2.x, MMSegmentation 0.x), their ImageNet classifiers, and networks with the deformable layers of
early MMDetection and MMCV. The file is loaded without running code from it, and written only if
every key and shape fits the model.
"""

import argparse
import re
from pathlib import Path

import torch
from torch import Tensor

from mmdcn.checkpoints import (
    CheckpointError,
    find_state_dict,
    load_checkpoint_file,
    misfit,
    open_replacing,
    rename_old_offset_keys,
    shown,
)
from mmdcn.engine import launch
from mmdcn.models.backbones import InternImage

ENTRIES = ("state_dict", "model")
TRANSFORMER = r"^bbox_head\.transformer\."
MASK2FORMER = r"^(decode_head\.)"
# (pattern, replacement), tried on each key in this order; several may apply.
RENAMES = [
    # modulated deformable layers; those whose offset convolution stands beside them come later
    (r"\.conv_offset_mask\.", ".conv_offset."),
    # DINO; the one on a composite backbone has its only neck in a list
    (r"^neck\.0\.", "neck."),
    (TRANSFORMER + r"level_embeds$", "level_embed"),
    (TRANSFORMER + r"enc_output\.", "memory_trans_fc."),
    (TRANSFORMER + r"enc_output_norm\.", "memory_trans_norm."),
    (TRANSFORMER + r"query_embed\.", "query_embedding."),
    (TRANSFORMER + r"decoder\.ref_point_head\.0\.", "decoder.ref_point_head.layers.0."),
    (TRANSFORMER + r"decoder\.ref_point_head\.2\.", "decoder.ref_point_head.layers.1."),
    (TRANSFORMER + r"(encoder\.layers\.\d+)\.attentions\.0\.", r"\1.self_attn."),
    (TRANSFORMER + r"(decoder\.layers\.\d+)\.attentions\.0\.", r"\1.self_attn."),
    (TRANSFORMER + r"(decoder\.layers\.\d+)\.attentions\.1\.", r"\1.cross_attn."),
    (TRANSFORMER + r"((?:en|de)coder\.layers\.\d+)\.ffns\.0\.", r"\1.ffn."),
    (TRANSFORMER + r"((?:en|de)coder\.)", r"\1"),
    (r"^bbox_head\.label_embedding\.", "dn_query_generator.label_embedding."),
    # Mask2Former
    (MASK2FORMER + r"(pixel_decoder\.encoder\.layers\.\d+)\.attentions\.0\.", r"\1\2.self_attn."),
    (MASK2FORMER + r"(transformer_decoder\.layers\.\d+)\.attentions\.0\.", r"\1\2.cross_attn."),
    (MASK2FORMER + r"(transformer_decoder\.layers\.\d+)\.attentions\.1\.", r"\1\2.self_attn."),
    (MASK2FORMER + r"(.*\.layers\.\d+)\.ffns\.0\.", r"\1\2.ffn."),
]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="published file")
    parser.add_argument("config", help="config of the model that the result is for")
    parser.add_argument("out", help="file to write")
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help="of a classifier's last layer, keep the classes whose indices are in this text file: "
        "with map22kto1k.txt of the official repository, those of ImageNet-1k",
    )
    launch.add_config_options(parser)
    return parser.parse_args()


def convert(
    state_dict: dict[str, Tensor], own: dict[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Rename the keys of a published state dict.

    Args:
        state_dict: Of a detector, or of a classifier whose backbone is wanted.
        own: State dict of the model; its values are not read.

    Returns:
        The renamed state dict, and a report of what was done, line by line.

    Raises:
        CheckpointError: A key or a shape does not fit.
    """
    report = []
    state_dict = drop(state_dict, lambda key: key.startswith("ema_"), "averages", report)
    state_dict = join_split_ffns(state_dict, report)
    expected, missing = own, ()
    if not any(key.startswith("backbone.") for key in state_dict):
        state_dict = from_transformers(state_dict, report)
        if "head.fc.weight" in own:
            state_dict = classifier(state_dict, report)
        else:
            expected = {key: value for key, value in own.items() if key.startswith("backbone.")}
            missing = InternImage.may_be_missing
            state_dict = backbone(state_dict, report)
    state_dict = rename(state_dict, own, report)
    if difference := misfit(expected, state_dict, may_be_missing=missing):
        raise CheckpointError(f"it does not fit the model of the config: {difference}")
    return state_dict, report


def backbone(state_dict: dict[str, Tensor], report: list[str]) -> dict[str, Tensor]:
    """The trunk of an ImageNet classifier, under the keys of a detector's or segmentor's."""
    state_dict = drop(
        state_dict,
        lambda key: key.split(".")[0] in InternImage.may_be_unexpected,
        "of the classifier's head",
        report,
    )
    report.append(f"backbone. put in front of all {len(state_dict)} keys: this is a backbone")
    return {f"backbone.{key}": value for key, value in state_dict.items()}


def from_transformers(state_dict: dict[str, Tensor], report: list[str]) -> dict[str, Tensor]:
    """The keys of the releases in the format of transformers, under their first names."""
    keys = [key.removeprefix("model.") for key in state_dict]
    keys = [re.sub(r"\.layer_scale([12])$", r".gamma\1", key) for key in keys]
    return _with_keys(state_dict, keys, report)


def classifier(state_dict: dict[str, Tensor], report: list[str]) -> dict[str, Tensor]:
    """The parts of an ImageNet classifier in the places that they have in MMPretrain's."""

    def place(key: str) -> str:
        part = key.split(".")[0]
        if part == "head":
            return key.replace("head.", "head.fc.", 1)
        return f"neck.{key}" if part in InternImage.may_be_unexpected else f"backbone.{key}"

    return _with_keys(state_dict, [place(key) for key in state_dict], report)


def select_classes(state_dict: dict[str, Tensor], file: str, report: list[str]) -> dict:
    """Keep the rows of the last layer that a file of class indices names, in its order.

    Raises:
        UsageError: The file does not hold indices of classes.
    """
    launch.require_file("--classes", file)
    weight = state_dict.get("head.weight")
    if weight is None:
        raise launch.UsageError("--classes: the checkpoint has no last layer, head.weight")
    try:
        rows = torch.tensor([int(word) for word in Path(file).read_text().split()])
    except ValueError as error:
        raise launch.UsageError(f"--classes {file}: expected whole numbers: {error}") from error
    if not len(rows) or rows.min() < 0 or rows.max() >= len(weight):
        raise launch.UsageError(
            f"--classes {file}: expected indices from 0 to {len(weight) - 1}, the classes of the "
            f"checkpoint, got {len(rows)} from {min(rows, default=None)} to "
            f"{max(rows, default=None)}"
        )
    report.append(f"kept {len(rows)} of the {len(weight)} classes")
    kept = {key: state_dict[key][rows] for key in ("head.weight", "head.bias")}
    return state_dict | kept


def drop(state_dict: dict[str, Tensor], unwanted, what: str, report: list[str]) -> dict:
    dropped = [key for key in state_dict if unwanted(key)]
    if dropped:
        report.append(f"left out {len(dropped)} {what}: {shown(dropped)}")
    return {key: value for key, value in state_dict.items() if key not in set(dropped)}


def join_split_ffns(state_dict: dict[str, Tensor], report: list[str]) -> dict[str, Tensor]:
    """Put together the layers that InternImage-G's transformer computes in four parts."""
    result = dict(state_dict)
    prefixes = [key.removesuffix("fc2_bias") for key in state_dict if key.endswith(".fc2_bias")]
    for prefix in prefixes:
        parts = range(sum(key.startswith(f"{prefix}fc1_") for key in state_dict) // 2)

        def take(leaf: str, dim: int, prefix=prefix, parts=parts) -> Tensor:
            return torch.cat([result.pop(f"{prefix}{leaf}".format(i)) for i in parts], dim)

        try:
            joined = {
                "layers.0.0.weight": take("fc1_{}.weight", 0),
                "layers.0.0.bias": take("fc1_{}.bias", 0),
                "layers.1.weight": take("fc2_{}.weight", 1),
                "layers.1.bias": result.pop(f"{prefix}fc2_bias"),
            }
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{prefix}*: the parts of this layer do not fit together: {error}"
            ) from error
        result.update({f"{prefix}{leaf}": value for leaf, value in joined.items()})
    if prefixes:
        report.append(f"joined {len(prefixes)} layers that are stored in parts: {shown(prefixes)}")
    return result


def rename(
    state_dict: dict[str, Tensor], own: dict[str, Tensor], report: list[str]
) -> dict[str, Tensor]:
    for pattern, replacement in RENAMES:
        new = [re.sub(pattern, replacement, key) for key in state_dict]
        state_dict = _with_keys(state_dict, new, report)
    return _with_keys(state_dict, list(rename_old_offset_keys(state_dict, own)), report)


def _with_keys(
    state_dict: dict[str, Tensor], keys: list[str], report: list[str]
) -> dict[str, Tensor]:
    """The values in their order under other keys."""
    renamed, changes = {}, []
    for (old, value), new in zip(state_dict.items(), keys, strict=True):
        if new in renamed:
            raise CheckpointError(f"two of its keys become {new}; one of them is {old}")
        renamed[new] = value
        if new != old:
            changes.append(f"{old} -> {new}")
    if changes:
        report.append(f"renamed {len(changes)}, for example {changes[0]}")
    return renamed


def check_version(meta: dict) -> None:
    """MMDetection 1.x puts the background class first, which no key tells."""
    version = str(meta.get("mmdet_version", ""))
    if version.startswith(("0.", "1.")):
        raise CheckpointError(
            f"MMDetection {version} wrote it, whose classes are in another order; convert it with "
            "tools/model_converters/upgrade_model_version.py of MMDetection 2.x first"
        )


def main() -> None:
    args = parse_args()
    cfg = launch.read_config(args.config, args.cfg_options)
    model = launch.build_model(cfg, "meta")
    content = load_checkpoint_file(args.checkpoint, "cpu")
    entries = getattr(model.backbone, "checkpoint_entries", ENTRIES)
    state_dict = find_state_dict(content, args.checkpoint, entries)
    meta = content.get("meta", {}) if isinstance(content.get("meta"), dict) else {}
    begin: list[str] = []
    if args.classes:
        state_dict = select_classes(state_dict, args.classes, begin)
    try:
        check_version(meta)
        converted, report = convert(state_dict, model.state_dict())
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {args.checkpoint}: {error}") from error
    # MMSegmentation also keeps the colours of the classes, which a picture needs.
    dataset_meta = {key.lower(): meta[key] for key in ("CLASSES", "PALETTE") if meta.get(key)}
    new_meta = dict(dataset_meta=dataset_meta) if dataset_meta else {}
    with open_replacing(args.out) as file:
        torch.save(dict(state_dict=converted, meta=new_meta), file)
    print("\n".join([f"{args.checkpoint}: {len(state_dict)} tensors", *begin, *report]))
    print(f"{args.out}: {len(converted)} tensors, which fit {args.config}")


if __name__ == "__main__":
    launch.run_tool(main)
