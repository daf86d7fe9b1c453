"""What the CUDA kernels ask of the memory: ``python -m benchmarks.traffic``.

Counted by the emulated device of ``tests/cuda_emulation``, without a GPU. For each kernel, and for
the mapping of the original DCNv3 with a thread per channel, the table shows load instructions and
stores that a thread executes per element of the output, the sectors of 32 bytes that the loads of
values request beside those of an ideal access to the same points, and the bytes in all requested
sectors beside those that are needed if each is moved once: the difference is up to the caches.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

EMULATION = Path(__file__).resolve().parents[1] / "tests" / "cuda_emulation"
# Every sampling point and all of its neighbours lie inside the image, and the work fills whole
# blocks, so that all threads of a warp do the same.
STRIDE, KERNEL, OUT_H, OUT_W = 2, 3, 8, 8
HEIGHT, WIDTH = STRIDE * OUT_H + KERNEL - 1, STRIDE * OUT_W + KERNEL - 1
SECTOR = 32


@dataclass(frozen=True)
class Measurement:
    """One kernel on one problem.

    Attributes:
        loads, stores: instructions of threads per element of the output (atomics are stores).
        value_width: bytes of the widest load.
        value_sectors: sectors that the widest loads request.
        sector_bytes: 32 times all sectors requested.
        ideal_bytes: every byte that is needed, once.
        ideal_value_sectors: of the four rows of channels that each point reads, where the widest
            loads read nothing else.
    """

    name: str
    loads: float
    stores: float
    value_width: int
    value_sectors: int
    sector_bytes: int
    ideal_bytes: int
    ideal_value_sectors: int | None = None


def problem(groups: int, group_channels: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Input, offsets and weights of dcnv3."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.rand(shape, generator=generator)

    points = groups * KERNEL**2
    input = random(1, HEIGHT, WIDTH, groups * group_channels)
    offset = random(1, OUT_H, OUT_W, 2 * points) * 0.8 + 0.1
    weight = random(1, OUT_H, OUT_W, points)
    return tuple(t.to(dtype) for t in (input, offset, weight))


def ideal_value_sectors(groups: int, group_channels: int, dtype: torch.dtype) -> int:
    """Sectors of the four rows of channels that each sampling point reads."""
    row = -(-group_channels * dtype.itemsize // SECTOR)
    return OUT_H * OUT_W * groups * KERNEL**2 * 4 * row


def summarise(
    name: str,
    traffic,
    kernel: str,
    outputs: int,
    ideal_bytes: int,
    ideal_value_sectors: int | None = None,
) -> Measurement:
    """The entries of kernels whose name contains ``kernel``."""
    own = [t for t in traffic if kernel in t.kernel]
    loads = [t for t in own if t.kind == "load"]
    width = max(t.width for t in loads)
    return Measurement(
        name=name,
        loads=sum(t.accesses for t in loads) / outputs,
        stores=sum(t.accesses for t in own if t.kind != "load") / outputs,
        value_width=width,
        value_sectors=sum(t.sectors for t in loads if t.width == width),
        sector_bytes=SECTOR * sum(t.sectors for t in own),
        ideal_bytes=ideal_bytes,
        ideal_value_sectors=ideal_value_sectors,
    )


def number_of_bytes(*tensors: torch.Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def measure_dcn(device, operator: str, groups: int, group_channels: int, dtype: torch.dtype):
    """Forward and backward kernel of dcnv3 or dcnv4."""
    from mmdcn import ops

    input, offset, weight = problem(groups, group_channels, dtype)
    if operator == "dcnv3":
        points = [offset, weight]
    else:  # offsets and weights of each group, then zeros up to a multiple of 8
        both = [t.unflatten(3, (groups, -1)) for t in (offset, weight)]
        packed = torch.cat(both, -1).flatten(3)
        points = [torch.nn.functional.pad(packed, (0, -packed.shape[3] % 8))]
    leaves = [t.requires_grad_() for t in (input, *points)]
    name = f"{operator}, {group_channels} channels a group, {str(dtype)[6:]}"
    with device.record() as traffic:
        output = getattr(ops, operator)(*leaves, KERNEL, STRIDE, 0, 1, groups)
    ideal = number_of_bytes(input, offset, weight, output)
    values = ideal_value_sectors(groups, group_channels, dtype)
    count = output.numel()
    forward = summarise(f"{name}, forward", traffic, "forward_kernel", count, ideal, values)
    with device.record() as traffic:
        output.sum().backward()
    # Gradients of the input are read and written in the type of computation.
    compute = 8 if dtype == torch.float64 else 4
    ideal += number_of_bytes(offset, weight) + 2 * compute * input.numel()
    return forward, summarise(f"{name}, backward", traffic, "backward_kernel", count, ideal)


def measure_scalar(device, groups: int, group_channels: int):
    """dcnv3 forward in float16 with a thread per channel; checks that it computes the same."""
    from mmdcn.ops import reference

    input, offset, weight = problem(groups, group_channels, torch.float16)
    channels = groups * group_channels
    output = input.new_empty(1, OUT_H, OUT_W, channels)
    pointers = (t.data_ptr() for t in (input, offset, weight, output))
    with device.record() as traffic:
        device.scalar_dcnv3(
            *pointers, 1, HEIGHT, WIDTH, channels, groups, OUT_H, OUT_W, KERNEL, STRIDE
        )
    expected = reference.dcnv3(input, offset, weight, KERNEL, STRIDE, 0, 1, groups)
    torch.testing.assert_close(output, expected)
    ideal = number_of_bytes(input, offset, weight, output)
    name = f"dcnv3, {group_channels} channels a group, float16, forward, a thread per channel"
    return summarise(name, traffic, "scalar_dcnv3_kernel", output.numel(), ideal)


def measure_deform_conv(device, channels: int, dtype: torch.dtype):
    """The kernels around the matrix product of deform_conv2d."""
    from mmdcn import ops

    input, offset, _ = (t.permute(0, 3, 1, 2) for t in problem(1, channels, dtype))
    offset = offset.contiguous()
    weight = torch.ones(8, channels, KERNEL, KERNEL, dtype=dtype)
    leaves = [t.requires_grad_() for t in (input, offset, weight)]
    name = f"deform_conv2d, {channels} channels, {str(dtype)[6:]}"
    columns = OUT_H * OUT_W * channels * KERNEL**2
    with device.record() as traffic:
        output = ops.deform_conv2d(*leaves, None, STRIDE)
    ideal = number_of_bytes(input, offset) + columns * dtype.itemsize
    forward = summarise(f"{name}, columns", traffic, "columns_kernel", columns, ideal)
    with device.record() as traffic:
        output.sum().backward()
    ideal += number_of_bytes(offset) + 8 * input.numel()
    backward = summarise(f"{name}, backward", traffic, "backward_kernel", columns, ideal)
    return forward, backward


def measure_all(device) -> list[Measurement]:
    half = torch.float16
    device.configure(vectors=True)
    rows = [measure_scalar(device, 4, 16)]
    for channels, dtype in ((16, half), (32, half), (64, half), (16, torch.float32)):
        rows += measure_dcn(device, "dcnv3", 4, channels, dtype)
    rows += measure_dcn(device, "dcnv4", 4, 16, half)
    for dtype in (half, torch.float32):
        rows += measure_deform_conv(device, 256, dtype)
    return rows


def table(rows: list[Measurement]) -> str:
    """As Markdown."""
    lines = [
        "| Kernel | Widest load | Loads per element | Stores and atomics per element | "
        "Value sectors / ideal | All sectors / needed bytes |",
        "|:--|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        values = "–"
        if row.ideal_value_sectors:
            values = f"{row.value_sectors / row.ideal_value_sectors:.2f}"
        ratio = f"{row.sector_bytes / row.ideal_bytes:.2f}"
        lines.append(
            f"| {row.name} | {row.value_width} B | {row.loads:.2f} | {row.stores:.2f} "
            f"| {values} | {ratio} |"
        )
    return "\n".join(lines)


def main() -> None:
    if "--inside" in sys.argv:
        from emulator import Device

        from mmdcn import _extension

        print(table(measure_all(Device(_extension._FOLDER))))
        return
    sys.path.insert(0, str(EMULATION))
    import emulator_build

    emulator_build.build()
    # A process of its own, since the sanitizers' runtimes have to be loaded before Python.
    command = [sys.executable, "-m", "benchmarks.traffic", "--inside"]
    sys.exit(subprocess.run(command, env=emulator_build.environment()).returncode)


if __name__ == "__main__":
    main()
