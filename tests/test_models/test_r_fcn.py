"""R-FCN's heads against a model in plain loops."""

import numpy as np
import pytest
import torch
from torch.func import functional_call

pytest.importorskip("mmdet")

from r_fcn_loops import (  # noqa: E402
    CLASSES,
    DEFORMABLE,
    IMAGE,
    LAYERS,
    NUM,
    SAMPLERS,
    boxes,
    feature_map,
    make_rois,
    pixelwise,
    predict,
    proposals,
    randomise,
    region_losses,
    roi_head,
    sample,
    train_batch,
    vote,
)

from mmdcn.models.heads.r_fcn import RFCNBBoxHead, RPNHead  # noqa: E402
from mmdcn.models.task_modules import OHEMSampler  # noqa: E402


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
