"""What is known of a GPU without torch: which one is the first, and nothing where there is no driver."""

from __future__ import annotations

import pytest

from service.gpu_memory import free_gpu_bytes, visible_index


@pytest.mark.parametrize(
    ("visible", "index"),
    [(None, 0), ("", None), ("-1", None), ("0", 0), ("3,1", 3), (" 2 , 0", 2), ("GPU-5d2c", 0), ("²", 0)],
)
def test_first_visible_gpu(visible: str | None, index: int | None) -> None:
    assert visible_index(visible) == index


def test_nothing_is_known_without_the_library() -> None:
    assert free_gpu_bytes({}, "libquire-test-of-a-missing-library.so") is None


def test_hidden_gpus_are_not_asked_for() -> None:
    assert free_gpu_bytes({"CUDA_VISIBLE_DEVICES": ""}, "libc.so.6") is None
