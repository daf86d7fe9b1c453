"""Loads a data set of a config and evaluates perfect predictions, as a run does."""

import contextlib
import io

import numpy as np
import torch
from mmengine.registry import DATASETS, METRICS, DefaultScope
from pycocotools import mask as mask_utils


def build(coco, loader="train"):
    """The data set of a loader of a prepared config."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        return DATASETS.build(coco.cfg[f"{loader}_dataloader"].dataset)


def labels(dataset):
    """Class names of the objects by the paths of their images, as training sees them."""
    classes = dataset.metainfo["classes"]
    found = {}
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        names = [classes[instance["bbox_label"]] for instance in info["instances"]]
        found.setdefault(info["img_path"].rpartition("/")[2], []).extend(names)
    return found


def evaluate_perfect(coco, change=lambda label: label):
    """Evaluate predictions that equal what the validation set loads; labels may be changed."""
    dataset = build(coco, "val")
    with DefaultScope.overwrite_default_scope("mmdet"):
        metric = METRICS.build(coco.cfg.val_evaluator)
    metric.dataset_meta = dataset.metainfo
    samples = []
    for index in range(len(dataset)):
        item = dataset[index]
        boxes = item["gt_bboxes"].tensor
        count = len(boxes)
        masks = getattr(item.get("gt_masks"), "masks", np.zeros((count, 1, 1), np.uint8))
        prediction = dict(
            bboxes=boxes,
            labels=torch.tensor([change(label) for label in item["gt_bboxes_labels"].tolist()]),
            scores=torch.ones(count),
            masks=[mask_utils.encode(np.asfortranarray(mask)) for mask in masks],
        )
        samples.append(
            dict(
                img_id=item["img_id"],
                ori_shape=item["ori_shape"],
                pred_instances=prediction,
                instances=item["instances"],
            )
        )
    with contextlib.redirect_stdout(io.StringIO()):
        metric.process({}, samples)
        return metric.evaluate(len(samples))
