"""What the kernels ask of the memory, counted on the emulated device.

``python tests/cuda_emulation/traffic.py`` builds the emulated library and prints a table: for each
kernel the load and store instructions that a thread executes per output element, the bytes in all
32-byte sectors that its warps request, and how many bytes would do if each were moved once.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import torch

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
    """

    name: str
    loads: float
    stores: float
    value_width: int
    value_sectors: int
    sector_bytes: int
    ideal_bytes: int


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


def summarise(name: str, traffic, kernel: str, outputs: int, ideal_bytes: int) -> Measurement:
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
    )


def number_of_bytes(*tensors: torch.Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def measure_dcnv3(device, groups: int, group_channels: int, dtype: torch.dtype):
    """Forward and backward kernel."""
    from mmdcn import ops

    input, offset, weight = problem(groups, group_channels, dtype)
    leaves = [t.requires_grad_() for t in (input, offset, weight)]
    name = f"dcnv3, {group_channels} channels a group, {str(dtype)[6:]}"
    with device.record() as traffic:
        output = ops.dcnv3(*leaves, KERNEL, STRIDE, 0, 1, groups)
    ideal = number_of_bytes(input, offset, weight, output)
    forward = summarise(f"{name}, forward", traffic, "forward_kernel", output.numel(), ideal)
    with device.record() as traffic:
        output.sum().backward()
    # Gradients of the input are read and written in float32.
    compute = 8 if dtype == torch.float64 else 4
    ideal += number_of_bytes(offset, weight) + 2 * compute * input.numel()
    backward = summarise(f"{name}, backward", traffic, "backward_kernel", output.numel(), ideal)
    return forward, backward


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
        rows += measure_dcnv3(device, 4, channels, dtype)
    for dtype in (half, torch.float32):
        rows += measure_deform_conv(device, 256, dtype)
    return rows


def table(rows: list[Measurement]) -> str:
    """As Markdown."""
    lines = [
        "| Kernel | Widest load | Loads per element | Stores and atomics per element | "
        "Sectors / needed bytes |",
        "|:--|--:|--:|--:|--:|",
    ]
    for row in rows:
        ratio = f"{row.sector_bytes / row.ideal_bytes:.2f}"
        lines.append(
            f"| {row.name} | {row.value_width} B | {row.loads:.2f} | {row.stores:.2f} | {ratio} |"
        )
    return "\n".join(lines)


def main() -> None:
    if "--inside" in sys.argv:
        from emulator import Device

        from mmdcn import _extension

        print(table(measure_all(Device(_extension._FOLDER))))
        return
    import emulator_build

    emulator_build.build()
    command = [sys.executable, __file__, "--inside"]
    sys.exit(subprocess.run(command, env=emulator_build.environment()).returncode)


if __name__ == "__main__":
    main()
