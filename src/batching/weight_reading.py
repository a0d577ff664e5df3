"""Weights from safetensors files to the device of the model, once: never a second copy in the memory of the host.

transformers maps the files, so that what it "loads" on a CPU are pages of the file. On another device each weight is
copied there straight from the mapped file: by transformers itself where `accelerate` is installed, which its
device_map asks for, else here. Knows nothing of configs and of what may be served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import is_accelerate_available
from transformers.utils import logging as transformers_logging

FractionCallback = Callable[[float], None]
"""Called with what is done of the reading, 0 to 1, never less than before."""

WEIGHTS_BAR = "Loading weights"
"""What transformers calls the progress bar over the weights it reads."""


class FractionReport:
    """Passes fractions on when they have grown by a hundredth, and the end; drops what goes backwards."""

    def __init__(self, on_fraction: FractionCallback) -> None:
        self._on_fraction = on_fraction
        self._last = -1

    def __call__(self, fraction: float) -> None:
        hundredths = int(100 * min(1.0, fraction))
        if hundredths > self._last:
            self._last = hundredths
            self._on_fraction(hundredths / 100)


def read_model(path: Path, device: torch.device, on_fraction: FractionCallback, **options: Any) -> tuple[Any, Any]:
    """(the model on the device, transformers' loading report); `options` are those of from_pretrained.

    Tied weights stay one tensor. On a CPU nothing is reported: the weights are only mapped.
    """
    report = FractionReport(on_fraction)
    if device.type == "cpu":
        return _from_pretrained(path, **options)
    if is_accelerate_available():
        with reported_reading(report):
            return _from_pretrained(path, device_map={"": device}, **options)
    model, loading_info = _from_pretrained(path, **options)
    move_weights(model, device, report)
    return model, loading_info


def _from_pretrained(path: Path, **options: Any) -> tuple[Any, Any]:
    model, loading_info = AutoModelForCausalLM.from_pretrained(
        path,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
        **options,
    )
    return model, loading_info


def move_weights(model: torch.nn.Module, device: torch.device, on_fraction: FractionCallback) -> None:
    """Move a model module by module; each weight leaves the host before the next one is read."""
    num_bytes = max(1, sum(parameter.nbytes for parameter in model.parameters()))
    seen: set[int] = set()
    num_moved = 0
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if any(True for _ in module.children()):
            continue  # what stands beside other modules is moved with the whole at the end
        module.to(device)
        num_moved += sum(parameter.nbytes for parameter in own if id(parameter) not in seen)
        seen.update(id(parameter) for parameter in own)
        on_fraction(num_moved / num_bytes)
    model.to(device)
    on_fraction(1.0)


@contextmanager
def reported_reading(on_fraction: FractionCallback) -> Iterator[None]:
    """While this is entered, transformers' bar over the weights goes to `on_fraction` as well."""
    set_hook = getattr(transformers_logging, "set_tqdm_hook", None)
    if set_hook is None:  # older than the hook: it only says nothing of the progress
        yield
        return

    def make_bar(factory: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if options.get("desc") == WEIGHTS_BAR and args:
            return factory(_counted(args[0], on_fraction), *args[1:], **options)
        return factory(*args, **options)

    previous = set_hook(make_bar)
    try:
        yield
    finally:
        set_hook(previous)


def _counted(weights: Any, on_fraction: FractionCallback) -> Iterable[Any]:
    total = max(1, len(weights))
    for number, weight in enumerate(weights, start=1):
        yield weight
        on_fraction(number / total)
