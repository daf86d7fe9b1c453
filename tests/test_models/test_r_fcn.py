"""R-FCN's heads against a model in plain loops."""

import math

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from suites.rois import clamped_bilinear, round_half_away
from torch.func import functional_call

pytest.importorskip("mmdet")

from mmdet.structures import DetDataSample  # noqa: E402

from mmdcn.models.heads.r_fcn import RFCNBBoxHead, RFCNRoIHead, RPNHead  # noqa: E402
from mmdcn.models.task_modules import OHEMSampler  # noqa: E402

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


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("agnostic", [True, False])
def test_forward_is_that_of_the_loops(layer, agnostic):
    head = randomise(roi_head(layer, reg_class_agnostic=agnostic))
    box_head, x, rois = head.bbox_head, feature_map(), make_rois()
    scores, deltas = box_head(box_head.maps(x), rois)
    assert scores.shape == (6, CLASSES + 1)
    assert deltas.shape == (6, 4 if agnostic else 4 * CLASSES)
    features = pixelwise(x.numpy(), box_head.conv.conv, relu=True)
    for found, predictor, class_aware in (
        (scores, box_head.fc_cls, True), (deltas, box_head.fc_reg, False)
    ):  # fmt: skip
        expected = vote(predictor, features, rois.numpy(), layer, class_aware)
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_zero_offsets_give_the_output_of_r_fcn():
    plain, deform = roi_head("sampled"), roi_head("deform")
    missing = deform.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing and all("conv_offset" in key for key in missing)
    x, rois = feature_map(), make_rois()
    expected = plain.bbox_head(plain.bbox_head.maps(x), rois)
    for found, value in zip(
        deform.bbox_head(deform.bbox_head.maps(x), rois), expected, strict=True
    ):
        assert value.abs().max() > 0 and torch.equal(found, value)
    # modulated, all masks are one half
    half = roi_head("modulated")
    half.load_state_dict(plain.state_dict(), strict=False)
    for found, value in zip(half.bbox_head(half.bbox_head.maps(x), rois), expected, strict=True):
        torch.testing.assert_close(found, value / 2)


@pytest.mark.parametrize("layer", DEFORMABLE)
def test_gradients_through_the_offsets(layer):
    head = randomise(roi_head(layer)).bbox_head
    x, rois = feature_map(1), make_rois(2, 1)
    parameters = dict(head.named_parameters())
    names = [n for n in parameters if "conv_offset" in n or "conv_mask" in n]
    names += ["fc_cls.conv.weight", "conv.conv.bias"]
    assert len(names) == 2 + 4 * (1 + (layer == "modulated"))

    class Outputs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = head

        def forward(self, x):
            return torch.cat(self.head(self.head.maps(x), rois), 1)

    def function(x, *values):
        given = {f"head.{name}": value for name, value in zip(names, values, strict=True)}
        return functional_call(Outputs(), given, (x,))

    inputs = [x, *(parameters[name].detach() for name in names)]
    assert torch.autograd.gradcheck(function, [t.clone().requires_grad_() for t in inputs])
    out = function(*(t.requires_grad_() for t in inputs))
    assert all(g.any() for g in torch.autograd.grad(out.square().sum(), inputs))


# ---------------------------------------------------------------------------- training, prediction


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


def test_losses_are_those_of_the_loops(monkeypatch):
    head = randomise(roi_head("deform"))
    x, (rpn, samples) = feature_map(), train_batch([12, 7], [2, 1])
    seen = {}
    inner = head.bbox_head.loss_and_target

    def record(**kwargs):
        seen.update(kwargs)
        return inner(**kwargs)

    monkeypatch.setattr(head.bbox_head, "loss_and_target", record)
    losses = head.loss((None, x), rpn, samples)
    sampled = seen["sampling_results"]
    priors = torch.cat([torch.cat([s.pos_priors, s.neg_priors]) for s in sampled]).numpy()
    index = np.repeat([0, 1], [len(s.pos_priors) + len(s.neg_priors) for s in sampled])
    features = pixelwise(x.numpy(), head.bbox_head.conv.conv, relu=True)
    rois = np.concatenate([index[:, None], priors], 1)
    scores = vote(head.bbox_head.fc_cls, features, rois, "deform", True)
    deltas = vote(head.bbox_head.fc_reg, features, rois, "deform", False)

    loss_cls = loss_box = positives = 0
    for n, box, score, delta in zip(index, priors, scores, deltas, strict=True):
        terms = region_losses(box, score, delta, samples[n].gt_instances)
        loss_cls += terms[0]
        positives += terms[1] is not None
        loss_box += terms[1] or 0
    assert positives >= 3 and len(rois) > positives
    assert losses["loss_cls"].item() == pytest.approx(loss_cls / len(rois), rel=1e-6)
    assert losses["loss_bbox"].item() == pytest.approx(loss_box / len(rois), rel=1e-6)


@pytest.mark.parametrize("layer", ["ps", "modulated"])
@pytest.mark.parametrize(
    "counts, objects",
    [([9, 0], [1, 2]), ([9, 5], [0, 0]), ([0, 0], [1, 0]), ([0, 0], [0, 0])],
    ids=["an_image_without_proposals", "no_objects", "no_proposals", "nothing"],
)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_trains_and_predicts_without_proposals_or_objects(layer, sampler, counts, objects):
    head = randomise(roi_head(layer, sampler))
    x = feature_map()
    losses = head.loss((x,), *train_batch(counts, objects))
    total = losses["loss_cls"] + losses["loss_bbox"]
    total.backward()
    assert total.isfinite()
    assert (losses["loss_cls"] > 0) == (sum(counts) + sum(objects) > 0)
    assert (losses["loss_bbox"] > 0) == (sum(objects) > 0)
    # distributed training wants a gradient for each
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())

    results = predict(head, (x,), *train_batch(counts, objects))
    assert [len(r.bboxes) > 0 for r in results] == [count > 0 for count in counts]
    for result in results:
        assert len(result.bboxes) == len(result.scores) == len(result.labels) <= 10


@pytest.mark.parametrize("objects", [[3, 2], [2, 0], [0, 0]], ids=str)
def test_hard_examples_are_those_of_the_largest_loss(objects):
    head = randomise(roi_head("ps", "ohem"))
    x, (rpn, samples) = feature_map(), train_batch([40, 30], objects)
    # objects are regions, too
    regions = [
        torch.cat([s.gt_instances.bboxes, p.bboxes]) for s, p in zip(samples, rpn, strict=True)
    ]
    seen = {}
    inner = head.bbox_head.loss_and_target
    head.bbox_head.loss_and_target = lambda **kwargs: seen.update(kwargs) or inner(**kwargs)
    calls = []
    head.bbox_head.conv.register_forward_hook(lambda *_: calls.append(1))
    head.loss((x,), rpn, samples)
    assert len(calls) == 1  # hard examples are found on the same maps
    by_class_alone = []
    for n, result in enumerate(seen["sampling_results"]):
        rois = torch.cat([torch.full((len(regions[n]), 1), n), regions[n]], 1)
        outputs = head.bbox_head(head.bbox_head.maps(x), rois)
        scores, deltas = (output.detach().numpy() for output in outputs)
        terms = [
            region_losses(*each, samples[n].gt_instances)
            for each in zip(regions[n].numpy(), scores, deltas, strict=True)
        ]
        hardest = np.argsort([-(cls + (box or 0)) for cls, box in terms])[:NUM]
        by_class_alone.append(set(np.argsort([-cls for cls, _ in terms])[:NUM]) == set(hardest))
        positive = {i for i in hardest.tolist() if terms[i][1] is not None}
        assert set(result.pos_inds.tolist()) == positive
        assert set(result.neg_inds.tolist()) == set(hardest.tolist()) - positive
    assert all(by_class_alone) == (objects == [0, 0])  # boxes matter


def test_hard_examples_need_a_head_of_one_stage():
    class Cascade:
        num_stages = 3

    with pytest.raises(ValueError, match="expected a RoI head with one stage, got Cascade"):
        OHEMSampler(8, Cascade())


def test_prediction_is_decoded_softmax():
    head = randomise(roi_head("deform")).eval()
    x, rpn = feature_map(1), [proposals(1, 3)]
    box = rpn[0].bboxes[0]
    rois = torch.cat([torch.zeros(1), box])[None]
    with torch.no_grad():
        scores, deltas = head.bbox_head(head.bbox_head.maps(x), rois)
    (result,) = predict(head, (x,), rpn, [sample(boxes(0), [])])
    expected = scores.softmax(1)[0, :CLASSES].sort(descending=True)
    torch.testing.assert_close(result.scores, expected.values.float())
    assert result.labels.tolist() == expected.indices.tolist()
    size, centre = box[2:] - box[:2], (box[:2] + box[2:]) / 2
    centre = centre + deltas[0, :2] * 0.1 * size
    half = size * (deltas[0, 2:] * 0.2).exp() / 2
    wanted = torch.cat([centre - half, centre + half])
    wanted[0::2].clamp_(0, IMAGE[1])
    wanted[1::2].clamp_(0, IMAGE[0])
    torch.testing.assert_close(
        result.bboxes, wanted.expand(CLASSES, 4).float(), rtol=1e-4, atol=1e-4
    )


def test_proposals_come_from_the_first_map_and_boxes_from_the_chosen_one():
    options = dict(type="AnchorGenerator", scales=[2], ratios=[1.0], strides=[4])
    rpn = RPNHead(3, feat_channels=2, anchor_generator=options)
    first, other = torch.randn(1, 3, 5, 6), torch.randn(1, 7, 5, 6)
    logits, deltas = rpn((first, other))
    assert [t.shape for t in (*logits, *deltas)] == [(1, 1, 5, 6), (1, 4, 5, 6)]
    torch.testing.assert_close(logits[0], rpn((first,))[0][0])

    x, (proposed, samples) = feature_map(1), train_batch([3], [0])
    results = [
        predict(roi_head("ps", level=level), maps, proposed, samples)[0]
        for level, maps in ((-1, (None, x)), (0, (x, None)))
    ]
    assert torch.equal(results[0].scores, results[1].scores)


def test_forward_of_the_roi_head_is_that_of_the_box_head():
    head, x = randomise(roi_head("deform")), feature_map()
    rpn, samples = train_batch([3, 2], [0, 0])
    images = torch.tensor([0, 0, 0, 1, 1])
    rois = torch.cat([images[:, None], torch.cat([p.bboxes for p in rpn])], 1)
    expected = head.bbox_head(head.bbox_head.maps(x), rois)
    for found, value in zip(head((None, x), rpn, samples), expected, strict=True):
        assert torch.equal(found, value)


@pytest.mark.parametrize(
    "layer, match",
    [
        (dict(type="DeformRoIPool", output_size=3), "position-sensitive.*got 'DeformRoIPool'"),
        (dict(type="Nothing", output_size=3), "position-sensitive RoI pooling.*got 'Nothing'"),
        (dict(type="PSRoIPool", output_size=(3, 2)), r"an integer output_size.*got.*\(3, 2\)"),
        (dict(type="DeformPSRoIPool", output_size=3, group_size=2), "group_size 2"),
    ],
)
def test_unfit_pooling(layer, match):
    with pytest.raises(ValueError, match=f"roi_layer: .*{match}"):
        RFCNBBoxHead(roi_layer=layer)
