"""Resumes a small run from damaged copies of its checkpoint, and tells how each attempt ends.

Prints JSON: for every copy what was done to it, the exit status, the log, and whether the weights
at the end are bitwise those of a run from the checkpoint itself.
"""

import copy
import json
import random
import shutil

import numpy as np
import torch
from forked import ForkedRun
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmdcn.checkpoints import load_checkpoint_file
from mmdcn.engine import launch

BYTE_MUTATIONS = 80


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 2)

    def forward(self, image, target, mode):
        value = self.head(self.norm(self.conv(image)).mean((2, 3)))
        return dict(loss=(value - target).square().mean())


class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 32  # no second epoch, before which MMEngine waits for two seconds

    def __getitem__(self, index):
        random = torch.Generator().manual_seed(index)
        return dict(image=torch.rand(3, 8, 8, generator=random), target=torch.ones(2) * index)


def train(name, load_from=None, iterations=6):
    def run():
        runner = Runner(
            Model(),
            name,
            train_dataloader=dict(
                dataset=Data(),
                batch_size=4,
                sampler=dict(type="DefaultSampler", shuffle=True),
                collate_fn=dict(type="default_collate"),
            ),
            train_cfg=dict(by_epoch=False, max_iters=iterations),
            optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.01, momentum=0.9)),
            param_scheduler=dict(type="LinearLR", start_factor=0.1, end=6, by_epoch=False),
            default_hooks=dict(
                logger=dict(type="LoggerHook", interval=1),
                checkpoint=dict(type="mmdcn.AtomicCheckpointHook", by_epoch=False, interval=3),
            ),
            randomness=dict(seed=0),
            load_from=load_from,
            resume=load_from is not None,
            experiment_name=name,
        )
        launch.judge_checkpoint(runner, whole=True)
        runner.train()

    run = ForkedRun(run, f"{name}.log")
    return run.wait(60), run.log.read_text()


def mutated_bytes(content, seed):
    """A copy with one fault of a disk or of a download."""
    moments = random.Random(seed)
    data = bytearray(content)
    start = moments.randrange(len(data))
    length = moments.randrange(1, 2000)
    kind = ("bit", "zeros", "noise", "cut", "lost", "twice")[seed % 6]
    if kind == "bit":
        data[start] ^= 1 << moments.randrange(8)
    elif kind == "zeros":
        data[start : start + length] = bytes(len(data[start : start + length]))
    elif kind == "noise":
        data[start : start + length] = moments.randbytes(len(data[start : start + length]))
    elif kind == "cut":
        del data[start:]
    elif kind == "lost":
        del data[start : start + length]
    else:
        data[start:start] = data[start : start + length]
    return f"{kind} at {start}", bytes(data)


def mutated_contents(content):
    """Copies that are whole files, but not of this run or not of a run at all."""

    def changed(*path, value=None):
        new = copy.deepcopy(content)
        target = new
        for key in path[:-1]:
            target = target[key]
        if value is None:
            del target[path[-1]]
        else:
            target[path[-1]] = value
        return new

    weights = content["state_dict"]
    yield "no meta", changed("meta")
    yield "no optimizer", changed("optimizer")
    yield "no message hub", changed("message_hub")
    yield "no schedulers", changed("param_schedulers")
    yield "no weights", changed("state_dict")
    yield "weights alone", dict(weights)
    yield "a weight less", changed("state_dict", "head.bias")
    yield "a weight more", changed("state_dict", "head.scale", value=torch.ones(2))
    yield "a weight of another shape", changed("state_dict", "head.bias", value=torch.ones(3))
    yield "a weight as a list", changed("state_dict", "head.bias", value=[1.0, 2.0])
    yield "a weight as an array", changed("state_dict", "head.bias", value=np.ones(2))
    yield "an iteration that is text", changed("meta", "iter", value="3")
    yield "an iteration below zero", changed("meta", "iter", value=-3)
    yield "no epoch", changed("meta", "epoch")
    yield "meta that is a list", changed("meta", value=[1])
    yield "an optimizer that is a list", changed("optimizer", value=[1])
    yield "an optimizer without groups", changed("optimizer", value=dict(state={}))
    yield "another optimizer", changed("optimizer", "param_groups", value=[{}, {}])
    yield "a message hub that is a number", changed("message_hub", value=1)
    yield "a list", [weights]


def main():
    assert train("start", iterations=3)[0] == 0
    shutil.copy("start/iter_3.pth", "whole.pth")
    assert train("reference", "whole.pth")[0] == 0
    expected = load_checkpoint_file("reference/iter_6.pth")["state_dict"]
    with open("whole.pth", "rb") as file:
        content = file.read()
    copies = [mutated_bytes(content, seed) for seed in range(BYTE_MUTATIONS)]
    copies += mutated_contents(load_checkpoint_file("whole.pth"))
    results = []
    for number, (what, changed) in enumerate(copies):
        if isinstance(changed, bytes):
            with open("file.pth", "wb") as file:
                file.write(changed)
        else:
            torch.save(changed, "file.pth")
        status, log = train(f"run{number}", "file.pth")
        equal = False
        if status == 0:
            state = load_checkpoint_file(f"run{number}/iter_6.pth")["state_dict"]
            equal = all(torch.equal(state[key], value) for key, value in expected.items())
        results.append(dict(what=what, status=status, log=log[-3000:], equal=equal))
        shutil.rmtree(f"run{number}", ignore_errors=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
