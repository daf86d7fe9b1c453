"""R-FCN in plain loops, and small heads, regions and objects to compare it with."""

import math

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from suites.rois import clamped_bilinear, round_half_away

from mmdcn.models.heads.r_fcn import RFCNRoIHead

K, STRIDE, CHANNELS, CLASSES = 3, 4, 5, 2
IMAGE = (36, 44)
LAYERS = {
    "ps": dict(type="PSRoIPool", output_size=K),
    "sampled": dict(type="DeformPSRoIPool", output_size=K, sample_per_part=2),
    "deform": dict(type="mmdcn.DeformPSRoIPoolPack", output_size=K, sample_per_part=2),
    "modulated": dict(type="ModulatedDeformPSRoIPoolPack", output_size=K, sample_per_part=2),
}
DEFORMABLE = ["deform", "modulated"]
NUM = 8
SAMPLERS = {
    "random": dict(type="mmdet.RandomSampler", num=NUM, pos_fraction=0.25, neg_pos_ub=-1),
    "ohem": dict(type="mmdcn.OHEMSampler", num=NUM),
    "mmdet_ohem": dict(type="mmdet.OHEMSampler", num=NUM, pos_fraction=0.25, neg_pos_ub=-1),
}
ASSIGNER = dict(
    type="mmdet.MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5,
    match_low_quality=False, ignore_iof_thr=-1,
)  # fmt: skip


def roi_head(layer, sampler="random", level=-1, **options):
    torch.manual_seed(0)
    head = RFCNRoIHead(
        bbox_head=dict(
            type="mmdcn.RFCNBBoxHead",
            in_channels=CHANNELS,
            feat_channels=4,
            featmap_stride=STRIDE,
            num_classes=CLASSES,
            roi_layer=LAYERS[layer],
            **options,
        ),
        level=level,
        train_cfg=ConfigDict(assigner=ASSIGNER, sampler=SAMPLERS[sampler], pos_weight=-1),
        test_cfg=ConfigDict(score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5), max_per_img=10),
    ).double()
    head.init_weights()
    return head


def randomise(head):
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return head


def feature_map(images=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(images, CHANNELS, IMAGE[0] // STRIDE, IMAGE[1] // STRIDE,
                       generator=generator, dtype=torch.float64)  # fmt: skip


def boxes(count, seed=0):
    """``(count, 4)`` boxes of 8 to 24 pixels, some of them partly outside the image."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(8, 24, (count, 2))
    start = rng.uniform(-4, 1, (count, 2)) + rng.uniform(0, 1, (count, 2)) * (
        np.array(IMAGE[::-1]) - size
    )
    return torch.from_numpy(np.concatenate([start, start + size], 1))


def make_rois(count=6, images=2):
    return torch.cat([torch.arange(count)[:, None] % images, boxes(count)], 1)


# ------------------------------------------------------------------------- the same in plain loops


def pixelwise(x, conv, relu=False):
    """1x1 convolution of ``(N, C, H, W)``."""
    weight = conv.weight.detach().numpy()[:, :, 0, 0]
    bias = conv.bias.detach().numpy()
    out = np.zeros((len(x), len(weight), *x.shape[2:]))
    for n, o, y, column in np.ndindex(*out.shape):
        out[n, o, y, column] = weight[o] @ x[n, :, y, column] + bias[o]
    return np.maximum(out, 0) if relu else out


def quantised_bin(maps, roi, c, i, j):
    """R-FCN's bin: the mean of whole pixels."""
    x1, y1, x2, y2 = (int(round_half_away(v / STRIDE)) for v in roi[1:])
    height, width = max(y2 - y1, 1), max(x2 - x1, 1)
    image = maps[int(roi[0]), (c * K + i) * K + j]
    values = [
        image[y, x]
        for y in range(y1 + i * height // K, y1 - (-(i + 1) * height // K))
        for x in range(x1 + j * width // K, x1 - (-(j + 1) * width // K))
        if 0 <= y < image.shape[0] - 1 and 0 <= x < image.shape[1] - 1
    ]
    return sum(values) / max(len(values), 1)


def sampled_bin(maps, roi, c, i, j, samples, shift=(0.0, 0.0), trans_std=0.1):
    """Deformable R-FCN's bin: the mean of samples on a grid that the (x, y) shift moves."""
    x1, y1 = (round_half_away(v) / STRIDE - 0.5 for v in roi[1:3])
    x2, y2 = ((round_half_away(v) + 1) / STRIDE - 0.5 for v in roi[3:])
    width, height = max(x2 - x1, 0.1), max(y2 - y1, 0.1)
    image = maps[int(roi[0]), (c * K + i) * K + j]
    values = []
    for p, q in np.ndindex(samples, samples):
        y = y1 + (i + p / samples) * height / K + shift[1] * trans_std * height
        x = x1 + (j + q / samples) * width / K + shift[0] * trans_std * width
        if -0.5 <= y <= image.shape[0] - 0.5 and -0.5 <= x <= image.shape[1] - 0.5:
            values.append(clamped_bilinear(image, y, x))
    return sum(values) / max(len(values), 1)


def vote(predictor, features, rois, layer, class_aware):
    """``(R, outputs)``: bins of every output, averaged."""
    maps = pixelwise(features, predictor.conv)
    outputs = maps.shape[1] // K**2
    extra = {
        name: pixelwise(features, getattr(predictor.roi_layer, f"conv_{name}"))
        for name in ("offset", "mask")
        if hasattr(predictor.roi_layer, f"conv_{name}")
    }
    if extra:
        assert extra["offset"].shape[1] == 2 * K**2 * (outputs if class_aware else 1)
    result = np.zeros((len(rois), outputs))
    for r, c, i, j in np.ndindex(len(rois), outputs, K, K):
        owner = c if class_aware else 0  # whose offsets output c uses
        if layer == "ps":
            value = quantised_bin(maps, rois[r], c, i, j)
        else:
            shift, factor = (0.0, 0.0), 1.0
            if "offset" in extra:
                shift = [
                    sampled_bin(extra["offset"], rois[r], 2 * owner + axis, i, j, 2)
                    for axis in (0, 1)
                ]
            if "mask" in extra:
                factor = 1 / (1 + math.exp(-sampled_bin(extra["mask"], rois[r], owner, i, j, 2)))
            value = factor * sampled_bin(maps, rois[r], c, i, j, 2, shift)
        result[r, c] += value / K**2
    return result


def sample(gt, labels, ignored=0):
    meta = dict(img_shape=IMAGE, scale_factor=(1.0, 1.0))
    result = DetDataSample(metainfo=meta)
    result.gt_instances = InstanceData(bboxes=gt, labels=torch.tensor(labels, dtype=torch.long))
    result.ignored_instances = InstanceData(bboxes=boxes(ignored, 9))
    return result


def proposals(count, seed):
    return InstanceData(bboxes=boxes(count, seed), scores=torch.ones(count).double())


def train_batch(counts, objects):
    """Proposals and samples of images with so many proposals and objects."""
    rpn = [proposals(count, 10 + i) for i, count in enumerate(counts)]
    samples = [sample(boxes(n, 20 + i), [k % CLASSES for k in range(n)])
               for i, n in enumerate(objects)]  # fmt: skip
    return rpn, samples


def predict(head, x, rpn, samples):
    """In float32, which MMCV's suppression of overlapping boxes asks for."""
    x = [None if t is None else t.float() for t in x]
    rpn = [p.to(torch.float32) for p in rpn]
    with torch.no_grad():
        return head.float().eval().predict(x, rpn, samples)


def overlap(a, b):
    w, h = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    inter = max(w, 0) * max(h, 0)
    return inter / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inter)


def region_losses(box, score, delta, objects):
    """Losses of a region's class and of its box, which is None for background."""
    overlaps = [overlap(box, gt) for gt in objects.bboxes.numpy()]
    best = int(np.argmax(overlaps)) if overlaps else None
    hit = best is not None and overlaps[best] >= 0.5
    label = int(objects.labels[best]) if hit else CLASSES
    loss_cls = math.log(np.exp(score).sum()) - score[label]
    if not hit:
        return loss_cls, None
    gt = objects.bboxes[best].numpy()
    size, target = box[2:] - box[:2], gt[2:] - gt[:2]
    shift = ((gt[:2] + gt[2:]) - (box[:2] + box[2:])) / 2 / size
    wanted = np.concatenate([shift / 0.1, np.log(target / size) / 0.2])
    return loss_cls, sum(d**2 / 2 if d < 1 else d - 0.5 for d in np.abs(delta - wanted))
