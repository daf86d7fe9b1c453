"""The CUDA library in a CUDA build of torch, which needs no GPU."""

import pytest
import torch

from mmdcn import _extension, collect_env

pytestmark = pytest.mark.skipif(
    not _extension.is_available("cuda"), reason=f"{_extension.why_missing('cuda')}"
)
OPERATORS = ("deform_conv2d", "dcnv3", "dcnv4", "roi_avg_pool", "ps_roi_pool", "deform_roi_pool",
             "deform_ps_roi_pool")  # fmt: skip


def test_every_operator_has_a_cuda_kernel():
    names = {n for n in torch._C._dispatch_get_all_op_names() if n.startswith("mmdcn::")}
    names.remove("mmdcn::_cuda_build")
    assert names == {f"mmdcn::{name}{end}" for name in OPERATORS for end in ("", "_backward")}
    for name in names:
        for key in ("CPU", "CUDA"):
            assert torch._C._dispatch_has_kernel_for_dispatch_key(name, key), (name, key)


def test_collect_env_names_the_architectures():
    assert ", architectures sm_" in collect_env.collect_env()["native operators, CUDA"]
