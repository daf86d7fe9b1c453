"""One of several processes that train in shards, and alone on all data; run by test_sharding.py.

Prints how far both are apart, as JSON.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.dist import get_rank, get_world_size
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from torch.distributed.fsdp import FullyShardedDataParallel

from mmdcn.engine.sharding import FSDPStrategy
from mmdcn.models.backbones import InternImage

STEPS = 3


class Model(BaseModel):
    """The structure of InternImage-H, with a head."""

    def __init__(self):
        super().__init__()
        self.backbone = InternImage(
            arch="huge",
            channels=16,
            depths=(1, 1, 3, 1),
            groups=(2, 2, 4, 8),
            level2_post_norm_block_ids=(0, 2),
            out_indices=(3,),
            drop_path_rate=0.0,
            with_cp=True,
        )
        self.head = torch.nn.Conv2d(128, 5, 1)

    def forward(self, inputs, mode="loss"):
        return dict(loss=(self.head(self.backbone(inputs)[0]) - 3).square().mean())


def build_model():
    torch.manual_seed(0)
    model = Model().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model


def optim_wrapper():
    return dict(
        constructor="mmdcn.LayerDecayOptimWrapperConstructor",
        optimizer=dict(type="AdamW", lr=0.01, weight_decay=0.5),
        paramwise_cfg=dict(layer_decay_rate=0.9),
        clip_grad=dict(max_norm=0.1),
    )


def images(step, rank):
    generator = torch.Generator().manual_seed(100 * step + rank)
    return torch.randn(2, 3, 32, 48, generator=generator, dtype=torch.float64)


def train_alone():
    """Weights and gradient norms after each step, on the data of all processes."""
    model = build_model()
    wrapper = build_optim_wrapper(model, optim_wrapper())
    states, norms = [], []
    for step in range(STEPS):
        batch = torch.cat([images(step, rank) for rank in range(get_world_size())])
        model.train_step(dict(inputs=batch), wrapper)
        norms.append(wrapper.message_hub.get_scalar("train/grad_norm").current())
        states.append({k: v.clone() for k, v in model.state_dict().items()})
    return states, norms


def strategy(work_dir):
    made = FSDPStrategy(state_dict_cfg="full", work_dir=str(work_dir))
    made.prepare(build_model(), optim_wrapper=optim_wrapper())
    return made


def difference(state, expected):
    assert state.keys() == expected.keys()
    return max(((state[k] - v).norm() / v.norm()).item() for k, v in expected.items())


def main():
    work_dir = Path(sys.argv[1])
    dist.init_process_group("gloo")
    expected, norms = train_alone()
    sharded = strategy(work_dir)
    units = FullyShardedDataParallel.fsdp_modules(sharded.model)
    held = sum(p.numel() for p in sharded.model.parameters())
    report = dict(units=len(units), share=held / sum(v.numel() for v in expected[0].values()))
    report["norms"] = []
    for step in range(STEPS - 1):
        sharded.model.train_step(dict(inputs=images(step, get_rank())), sharded.optim_wrapper)
        norm = sharded.optim_wrapper.message_hub.get_scalar("train/grad_norm").current()
        report["norms"].append(abs(norm / norms[step] - 1))
    meta = dict(iter=STEPS - 1)  # as the runner adds it
    sharded.save_checkpoint(str(work_dir / "iter_2.pth"), extra_ckpt=dict(meta=meta))
    # a new run continues from the file
    resumed = strategy(work_dir)
    resumed.resume(str(work_dir / "iter_2.pth"), resume_param_scheduler=False)
    resumed.model.train_step(dict(inputs=images(STEPS - 1, get_rank())), resumed.optim_wrapper)
    state = resumed.model_state_dict()  # whole, in the first process
    if get_rank() == 0:
        saved = torch.load(work_dir / "iter_2.pth", weights_only=True)["state_dict"]
        report["saved"] = difference(saved, expected[-2])
        report["resumed"] = difference(state, expected[-1])
        print(json.dumps(report))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
