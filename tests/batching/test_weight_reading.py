"""Weights reach their device once, tied ones as one tensor, and the progress of it only grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from batching import weight_reading
from batching.model_loader import load_model, no_progress
from batching.weight_reading import FractionReport, move_weights, read_model, reported_reading
from tests.batching.real_engine import engine_settings
from tests.batching.tiny_models import TinyModels, make_config, make_model, save

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


class Reader:
    """from_pretrained that notes what it is asked for, and the devices that the weights are moved to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, has_accelerate: bool) -> None:
        self.options: dict[str, Any] = {}
        self.moved_to: list[torch.device] = []
        monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", self._read)
        monkeypatch.setattr(weight_reading, "is_accelerate_available", lambda: has_accelerate)
        monkeypatch.setattr(weight_reading, "move_weights", lambda model, device, report: self.moved_to.append(device))

    def _read(self, path: Path, **options: Any) -> tuple[str, str]:
        self.options = options
        return "model", "report"


@pytest.mark.parametrize(
    ("device", "has_accelerate", "device_map", "moved_to"),
    [(CPU, False, None, []), (CPU, True, None, []), (CUDA, True, {"": CUDA}, []), (CUDA, False, None, [CUDA])],
    ids=str,
)
def test_weights_go_straight_to_the_device(
    device: torch.device, has_accelerate: bool, device_map: Any, moved_to: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By transformers where it can, else weight by weight out of the mapped files."""
    reader = Reader(monkeypatch, has_accelerate=has_accelerate)
    assert read_model(Path("model"), device, lambda _: None, dtype=torch.bfloat16) == ("model", "report")
    assert reader.options.get("device_map") == device_map
    assert reader.moved_to == moved_to
    assert (reader.options["dtype"], reader.options["use_safetensors"]) == (torch.bfloat16, True)


def test_mapped_weights_take_no_memory_of_the_host(tmp_path: Path) -> None:
    """What is copied to a device comes out of the file: the process itself holds no second copy."""
    path = save(make_model(make_config("llama", vocab_size=200_000, hidden_size=64), 0), tmp_path)
    before = anonymous_kib()
    model = load_model(engine_settings(path), no_progress).model
    num_kib = sum(parameter.nbytes for parameter in model.parameters()) // 1024
    assert num_kib > 100_000
    assert anonymous_kib() - before < num_kib // 4


def anonymous_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


@pytest.mark.parametrize("is_tied", [False, True])
def test_moved_model_is_whole_and_ties_hold(is_tied: bool) -> None:
    model: Any = make_model(make_config("llama", tie_word_embeddings=is_tied), 0)
    fractions: list[float] = []
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    move_weights(model, CPU, fractions.append)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == is_tied
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert fractions == sorted(fractions)
    assert (fractions[-1], max(fractions), len(set(fractions)) > 5) == (1.0, 1.0, True)


def test_every_module_is_moved() -> None:
    """The meta device stands for one that is not the host's."""
    model: Any = make_model(make_config("gpt_oss"), 0)
    move_weights(model, torch.device("meta"), lambda _: None)
    assert {tensor.device.type for tensor in [*model.parameters(), *model.buffers()]} == {"meta"}


def test_transformers_tells_how_many_weights_it_has_read(tiny_models: TinyModels) -> None:
    """Held against the installed transformers: another name of its bar would mean no progress."""
    fractions: list[float] = []
    with reported_reading(fractions.append):
        AutoModelForCausalLM.from_pretrained(tiny_models.reference("llama").path)
    num_weights = len(fractions)
    assert num_weights > 10
    assert fractions == [number / num_weights for number in range(1, num_weights + 1)]


def test_hook_of_transformers_is_given_back(tiny_models: TinyModels) -> None:
    def earlier(factory: Any, args: Any, options: Any) -> Any:
        return factory(*args, **options)

    before = transformers_logging.set_tqdm_hook(earlier)
    with reported_reading(lambda _: None):
        pass
    assert transformers_logging.set_tqdm_hook(before) is earlier


def test_transformers_without_the_hook_loads_in_silence(
    tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(transformers_logging, "set_tqdm_hook")
    fractions: list[float] = []
    with reported_reading(fractions.append):
        model = AutoModelForCausalLM.from_pretrained(tiny_models.reference("llama").path)
    assert fractions == []
    assert all(parameter.device == CPU for parameter in model.parameters())


def test_progress_is_told_in_hundredths_and_never_goes_back() -> None:
    told: list[float] = []
    report = FractionReport(told.append)
    for fraction in (0.0, 0.001, 0.5, 0.2, 0.509, 0.51, 1.0, 1.7):
        report(fraction)
    assert told == [0.0, 0.5, 0.51, 1.0]
