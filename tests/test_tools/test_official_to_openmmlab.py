"""Conversion of published checkpoints: key by key, and files that do not fit."""

import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint
from official_keys import WIDTHS, official_dino, official_mask2former, official_upernet

from mmdcn.checkpoints import CheckpointError

pytest.importorskip("mmdet")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("model_converters/official_to_openmmlab")


NARROW = dict(channels=16, depths=(1, 1, 1, 1), groups=(1, 2, 4, 8))
DINO_NARROW = dict(
    backbone=NARROW,
    neck=dict(in_channels=[32, 64, 128]),
    num_queries=30,
    encoder=dict(num_layers=2),
    decoder=dict(num_layers=2),
)


def write_config(path, base, model):
    path.write_text(f"_base_ = {str(ROOT / 'configs' / base)!r}\nmodel = {model!r}\n")
    return path


def build(config, device="cpu"):
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device(device):
        return MODELS.build(cfg.model)


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    path = tmp_path_factory.mktemp("dino") / "dino.py"
    return write_config(path, "internimage/dino-4scale_internimage-t_1x_coco.py", DINO_NARROW)


def official_file(model, keys):
    """Random weights under official keys, and the same under the keys of `model`."""
    ours = {k: torch.randn(v.shape) for k, v in model.state_dict().items()
            if k.startswith(("backbone.", "neck."))}  # fmt: skip
    theirs = dict(ours)
    for old, new, shape in keys:
        theirs[old] = ours[new] = torch.randn(shape)
    return theirs, ours


def run(tool, monkeypatch, *args):
    monkeypatch.setattr("sys.argv", ["official_to_openmmlab.py", *map(str, args)])
    tool.main()


def assert_same(loaded, expected):
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], value) for key, value in expected.items())


def test_dino(tool, dino, tmp_path, monkeypatch, capsys):
    model = build(dino)
    theirs, ours = official_file(model, official_dino())
    theirs = {f"module.{k}": v for k, v in theirs.items()}
    theirs["module.ema_backbone_patch_embed_conv1_weight"] = torch.zeros(3)
    meta = dict(CLASSES=("cat", "dog"), mmdet_version="2.28.1", config="model = dict()")
    torch.save(dict(state_dict=theirs, meta=meta), tmp_path / "in.pth")
    run(tool, monkeypatch, tmp_path / "in.pth", dino, tmp_path / "new" / "out.pth")
    content = torch.load(tmp_path / "new" / "out.pth", weights_only=True)
    assert_same(content["state_dict"], ours)
    model.load_state_dict(content["state_dict"])
    assert content["meta"] == dict(dataset_meta=dict(classes=("cat", "dog")))
    report = capsys.readouterr().out
    assert "left out 1 averages: ema_backbone_patch_embed_conv1_weight" in report
    assert "bbox_head.transformer.enc_output.weight -> memory_trans_fc.weight" in report
    assert f"{len(ours)} tensors, which fit" in report
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["out.pth"]


def test_split_layers_are_joined(tool, dino):
    model = build(dino, "meta")
    theirs, ours = official_file(model, official_dino())
    for layer in [f"bbox_head.transformer.{c}.layers.1.ffns.0" for c in ("encoder", "decoder")]:
        for i in range(4):
            rows = slice(512 * i, 512 * (i + 1))
            theirs[f"{layer}.fc1_{i}.weight"] = theirs[f"{layer}.layers.0.0.weight"][rows]
            theirs[f"{layer}.fc1_{i}.bias"] = theirs[f"{layer}.layers.0.0.bias"][rows]
            theirs[f"{layer}.fc2_{i}.weight"] = theirs[f"{layer}.layers.1.weight"][:, rows]
        theirs[f"{layer}.fc2_bias"] = theirs[f"{layer}.layers.1.bias"]
        for leaf in ("layers.0.0.weight", "layers.0.0.bias", "layers.1.weight", "layers.1.bias"):
            del theirs[f"{layer}.{leaf}"]
    converted, report = tool.convert(theirs, model.state_dict())
    assert_same(converted, ours)
    assert any(line.startswith("joined 2 layers") for line in report)
    del theirs["bbox_head.transformer.decoder.layers.1.ffns.0.fc2_2.weight"]
    with pytest.raises(CheckpointError, match=r"decoder.*parts .* not fit together: .*fc2_2"):
        tool.convert(theirs, model.state_dict())


def test_neck_of_a_composite_backbone(tool, tmp_path):
    base = "internimage/dino-4scale_cb-internimage-h_20k_objects365-to-coco.py"
    settings = dict(**NARROW, level2_post_norm_block_ids=(0,))
    config = write_config(tmp_path / "cb.py", base, {**DINO_NARROW, "backbone": settings})
    own = build(config, "meta").state_dict()
    weights = {key: torch.zeros(value.shape) for key, value in own.items()}
    assert "neck.extra_convs.0.conv.weight" in own and "backbone.cb_linears.2.1.bias" in own
    official = {key.replace("neck.", "neck.0."): value for key, value in weights.items()}
    converted, report = tool.convert(official, own)
    assert_same(converted, weights)
    assert len(report) == 1 and report[0].startswith("renamed 12, for example neck.0.")


FLASH = "flash_internimage/mask-rcnn_flash-internimage-t_fpn_1x_coco.py"
RCNN = dict(backbone=NARROW, neck=dict(in_channels=[16, 32, 64, 128]))


@pytest.mark.parametrize("entry", ["model", "model_ema"])
def test_classifier(tool, entry, tmp_path, monkeypatch):
    config = write_config(tmp_path / "flash.py", FLASH, RCNN)
    backbone = build(config).backbone.state_dict()
    theirs = {k: torch.randn_like(v) for k, v in backbone.items() if "gamma" not in k}
    expected = {f"backbone.{k}": v for k, v in theirs.items()}
    file = dict(theirs, **{"head.weight": torch.zeros(10, 4), "conv_head.0.weight": torch.zeros(1)})
    content = {entry: file, "optimizer": dict(lr=0.1)}
    if entry == "model_ema":  # the averages are what the authors used
        content["model"] = {k: torch.zeros_like(v) for k, v in file.items()}
    torch.save(content, tmp_path / "in.pth")
    run(tool, monkeypatch, tmp_path / "in.pth", config, tmp_path / "out.pth")
    assert_same(torch.load(tmp_path / "out.pth", weights_only=True)["state_dict"], expected)


def test_detectors_whose_keys_have_not_changed(tool, tmp_path):
    config = write_config(tmp_path / "flash.py", FLASH, RCNN)
    own = build(config, "meta").state_dict()
    # as the official neck with layer norms names them
    assert own["neck.lateral_convs.3.ln.weight"].shape == (256,)
    assert "neck.fpn_convs.0.conv.bias" not in own
    weights = {k: torch.zeros(v.shape) for k, v in own.items()}
    converted, report = tool.convert(weights, own)
    assert_same(converted, weights)
    assert report == []


UPERNET = "internimage/upernet_internimage-t_160k_ade20k-512x512.py"
MASK2FORMER = "flash_internimage/mask2former_flash-internimage-t_160k_ade20k-512x512.py"


def backbone_weights(model):
    return {k: torch.randn(v.shape) for k, v in model.state_dict().items() if "backbone." in k}


def test_upernet(tool, tmp_path, monkeypatch, capsys):
    pytest.importorskip("mmseg")
    settings = dict(
        backbone=NARROW,
        decode_head=dict(in_channels=list(WIDTHS), channels=24),
        auxiliary_head=dict(in_channels=64, channels=16),
    )
    config = write_config(tmp_path / "upernet.py", UPERNET, settings)
    model = build(config)
    theirs = backbone_weights(model) | {k: torch.randn(s) for k, s in official_upernet()}
    meta = dict(
        CLASSES=("wall", "building"), PALETTE=[[1, 2, 3], [4, 5, 6]], mmseg_version="0.27.0"
    )
    torch.save(dict(state_dict=theirs, meta=meta), tmp_path / "in.pth")
    run(tool, monkeypatch, tmp_path / "in.pth", config, tmp_path / "out.pth")
    content = torch.load(tmp_path / "out.pth", weights_only=True)
    assert_same(content["state_dict"], theirs)
    expected = dict(classes=("wall", "building"), palette=[[1, 2, 3], [4, 5, 6]])
    assert content["meta"] == dict(dataset_meta=expected)
    assert "renamed" not in capsys.readouterr().out  # README: they load as they are
    model.load_state_dict(theirs)


def narrow_mask2former(path):
    """Layers of 32 channels, in the numbers of the recipe."""
    pytest.importorskip("mmseg")
    attention = dict(embed_dims=32, num_heads=4)
    ffn = dict(embed_dims=32, feedforward_channels=48)
    position = dict(num_feats=16)
    head = dict(
        in_channels=list(WIDTHS),
        feat_channels=32,
        out_channels=32,
        num_queries=20,
        positional_encoding=position,
        pixel_decoder=dict(
            encoder=dict(layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
            positional_encoding=position,
        ),
        transformer_decoder=dict(
            layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn)
        ),
    )
    return write_config(path, MASK2FORMER, dict(backbone=NARROW, decode_head=head))


def test_mask2former(tool, tmp_path, monkeypatch, capsys):
    config = narrow_mask2former(tmp_path / "mask2former.py")
    model = build(config)
    backbone = backbone_weights(model)
    theirs, ours = dict(backbone), dict(backbone)
    for old, new, shape in official_mask2former():
        theirs[old] = ours[new] = torch.randn(shape)
    torch.save(dict(state_dict=theirs), tmp_path / "in.pth")
    run(tool, monkeypatch, tmp_path / "in.pth", config, tmp_path / "out.pth")
    converted = torch.load(tmp_path / "out.pth", weights_only=True)["state_dict"]
    # the weights of the classes in the loss are a constant of the config
    extra = model.state_dict().keys() - ours.keys()
    assert not extra, extra
    assert_same(converted, ours)
    model.load_state_dict(converted)
    report = capsys.readouterr().out
    name = "decode_head.transformer_decoder.layers.0"
    assert f"{name}.attentions.0.attn.in_proj_weight -> {name}.cross_attn.attn.in_proj" in report

    del theirs["decode_head.transformer_decoder.layers.8.attentions.1.attn.in_proj_bias"]
    match = r"keys missing: decode_head\.transformer_decoder\.layers\.8\.self_attn\.attn\.in_proj_b"
    with pytest.raises(CheckpointError, match=match):
        tool.convert(theirs, model.state_dict())


def test_mask2former_of_other_classes(tool, tmp_path, monkeypatch):
    """That of COCO-Stuff has 171; the recipe for ADE20K starts from all but the class scores."""
    config = narrow_mask2former(tmp_path / "mask2former.py")
    model = build(config)
    theirs = backbone_weights(model)
    for old, _, shape in official_mask2former():
        shape = (172, *shape[1:]) if "cls_embed" in old else shape
        theirs[old] = torch.randn(shape)
    torch.save(dict(state_dict=theirs), tmp_path / "in.pth")
    files = tmp_path / "in.pth", config, tmp_path / "out.pth"
    with pytest.raises(CheckpointError, match=r"other shapes: decode_head\.cls_embed\.weight"):
        run(tool, monkeypatch, *files)
    run(tool, monkeypatch, *files, "--cfg-options", "model.decode_head.num_classes=171")

    before = {key: value.clone() for key, value in model.state_dict().items()}
    converted = load_checkpoint(model, str(tmp_path / "out.pth"))["state_dict"]
    for key, value in model.state_dict().items():
        same = before if ".cls_embed." in key else converted
        assert torch.equal(value, same[key]), key


@pytest.mark.parametrize("old", ["_offset.", ".conv_offset_mask.", ".conv_offset."])
def test_early_deformable_layers(tool, old):
    own = build(ROOT / "configs" / "dcn" / "faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py", "meta")
    own = own.state_dict()
    weights = {k: torch.zeros(v.shape) for k, v in own.items()}
    early = {k.replace(".conv_offset.", old): v for k, v in weights.items()}
    assert f"backbone.layer2.0.conv2{old}weight" in early
    converted, report = tool.convert(early, own)
    assert_same(converted, weights)
    renamed = [f"renamed 26, for example backbone.layer2.0.conv2{old}"]
    assert [line.partition("weight")[0] for line in report] == renamed * (old != ".conv_offset.")


class TestRefused:
    def refuse(self, tool, monkeypatch, tmp_path, dino, content, match):
        if content is not None:
            torch.save(content, tmp_path / "in.pth")
        with pytest.raises(CheckpointError, match=match):
            run(tool, monkeypatch, tmp_path / "in.pth", dino, tmp_path / "out.pth")
        assert {p.name for p in tmp_path.iterdir()} <= {"in.pth"}

    def weights(self, dino):
        return official_file(build(dino, "meta"), official_dino())[0]

    def test_missing_key(self, tool, dino, tmp_path, monkeypatch):
        weights = self.weights(dino)
        del weights["bbox_head.transformer.enc_output.bias"]
        match = r"in\.pth: it does not fit .*keys missing: memory_trans_fc\.bias$"
        self.refuse(tool, monkeypatch, tmp_path, dino, dict(state_dict=weights), match)

    def test_unexpected_key(self, tool, dino, tmp_path, monkeypatch):
        weights = dict(self.weights(dino), **{"roi_head.fc.weight": torch.zeros(1)})
        match = r"unexpected keys: roi_head\.fc\.weight$"
        self.refuse(tool, monkeypatch, tmp_path, dino, dict(state_dict=weights), match)

    def test_other_shape(self, tool, dino, tmp_path, monkeypatch):
        weights = dict(
            self.weights(dino), **{"neck.convs.0.conv.weight": torch.zeros(256, 9, 1, 1)}
        )
        match = (
            r"other shapes: neck\.convs\.0\.conv\.weight \(\(256, 9, 1, 1\) in the file, \(256, 32"
        )
        self.refuse(tool, monkeypatch, tmp_path, dino, dict(state_dict=weights), match)

    def test_first_mmdetection(self, tool, dino, tmp_path, monkeypatch):
        content = dict(state_dict=self.weights(dino), meta=dict(mmdet_version="1.0rc1+a1b2c3"))
        match = "MMDetection 1.0rc1.*classes are in another order"
        self.refuse(tool, monkeypatch, tmp_path, dino, content, match)

    def test_code(self, tool, dino, tmp_path, monkeypatch):
        class Executes:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "executed"),)

        content = dict(state_dict=self.weights(dino), extra=Executes())
        self.refuse(tool, monkeypatch, tmp_path, dino, content, "mkdir")

    def test_truncated(self, tool, dino, tmp_path, monkeypatch):
        torch.save(self.weights(dino), tmp_path / "in.pth")
        content = (tmp_path / "in.pth").read_bytes()
        (tmp_path / "in.pth").write_bytes(content[: len(content) // 2])
        self.refuse(tool, monkeypatch, tmp_path, dino, None, "truncated")
