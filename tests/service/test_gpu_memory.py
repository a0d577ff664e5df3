"""What is known of a GPU without torch: which one is the first, and nothing where there is no driver."""

from __future__ import annotations

from typing import Any

import pytest

from service.gpu_memory import GpuMemory, free_gpu_bytes, gpu_memory, visible_index


class FakeNvml:
    """NVIDIA's management library with GPUs 0 to 3: i + 1 of 24 bytes are free on number i; counts its openings."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.num_open = 0
        self._index = -1

    def nvmlInit_v2(self) -> int:  # noqa: N802 (the library's names)
        self.num_open += self.failing != "init"
        return int(self.failing == "init")

    def nvmlShutdown(self) -> int:  # noqa: N802
        self.num_open -= 1
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:  # noqa: N802
        self._index = index.value
        return int(index.value > 3)

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:  # noqa: N802
        memory._obj.free = self._index + 1
        memory._obj.total = 24
        return int(self.failing == "memory")


@pytest.mark.parametrize(
    ("visible", "index"),
    [(None, 0), ("", None), ("-1", None), ("0", 0), ("3,1", 3), (" 2 , 0", 2), ("GPU-5d2c", 0), ("²", 0)],
)
def test_first_visible_gpu(visible: str | None, index: int | None) -> None:
    assert visible_index(visible) == index


@pytest.mark.parametrize(
    ("environ", "failing", "expected"),
    [
        ({}, "", 1),
        ({"CUDA_VISIBLE_DEVICES": "2,1"}, "", 3),
        ({"CUDA_VISIBLE_DEVICES": "9"}, "", None),
        ({}, "memory", None),
        ({}, "init", None),
    ],
)
def test_free_memory_of_the_first_visible_gpu(environ: dict[str, str], failing: str, expected: int | None) -> None:
    nvml = FakeNvml(failing)
    assert free_gpu_bytes(environ, lambda name: nvml) == expected
    assert nvml.num_open == 0


def test_total_memory_is_told_beside_it() -> None:
    assert gpu_memory({}, lambda name: FakeNvml()) == GpuMemory(total_bytes=24, free_bytes=1)


def test_nothing_is_known_without_the_library() -> None:
    def refuse(name: str) -> Any:
        raise OSError(name)

    assert free_gpu_bytes({}, refuse) is None


def test_hidden_gpus_are_not_asked_for() -> None:
    assert free_gpu_bytes({"CUDA_VISIBLE_DEVICES": ""}, lambda name: FakeNvml()) is None
