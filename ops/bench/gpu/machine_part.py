"""What the device itself can do: the figures that all floors come from."""

from __future__ import annotations

import torch

from ops.bench.gpu.device_clock import name_of, seconds_of
from ops.bench.gpu.floors import Machine
from ops.bench.gpu.plan import Plan
from ops.bench.gpu.rows import Row, RowFile

COPY, PRODUCT = "copy bandwidth", "bfloat16 matrix product"


def measure_machine(plan: Plan, rows: RowFile) -> None:
    """Copy of a large tensor, read and written bytes counted; product of two square matrices."""
    device = torch.device(plan.device)
    num_bytes, size = plan.sizes.copy_bytes, plan.sizes.matrix_size
    rows.add(COPY, 2 * num_bytes / copy_s(num_bytes, device) / 1e12, "TB/s", note=name_of(device))
    rows.add(PRODUCT, 2 * size**3 / product_s(size, device) / 1e12, "TFLOP/s", note=f"{size} x {size} x {size}")


def copy_s(num_bytes: int, device: torch.device) -> float:
    """Seconds to copy so many bytes on the device."""
    source = torch.zeros(num_bytes // 4, dtype=torch.float32, device=device)
    target = torch.zeros_like(source)
    return seconds_of(lambda _: target.copy_(source), device)


def product_s(size: int, device: torch.device) -> float:
    """Seconds to multiply two square matrices of random numbers: of zeros a device makes faster work."""
    left, right = (torch.randn(size, size, device=device).to(torch.bfloat16) for _ in range(2))
    out = torch.empty_like(left)
    return seconds_of(lambda _: torch.mm(left, right, out=out), device)


def machine_of(rows: list[Row]) -> Machine | None:
    """What `measure_machine` found; None where it did not get so far."""
    found = {row.figure: row for row in rows}
    if not {COPY, PRODUCT} <= set(found):
        return None
    copy, product = found[COPY].value, found[PRODUCT].value
    if copy is None or product is None:
        return None
    return Machine(name=found[COPY].note, copy_bytes_per_s=copy * 1e12, flops_per_s=product * 1e12)
