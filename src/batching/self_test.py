"""Proves on this machine that the engine says what plain transformers says: `python -m batching.self_test`.

Reads a SelfTestOrder from standard input and writes a line for each SelfTestMessage. The reference is made first and
let go, so that the two never hold the weights at once. Knows no terminal and no settings but the order's.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from itertools import takewhile

import msgspec
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from batching.machine import num_cores
from batching.model_loader import UNREADABLE, read_config, resolve_device, resolve_dtype, resolve_path
from batching.offline import OfflineEngine
from batching.threads import use_threads
from contracts.errors import ModelNotUsable, QuireError
from contracts.generation import GenerationRequest
from contracts.sampling import SamplingParams
from contracts.self_test import (
    Difference,
    EqualityReport,
    KernelReport,
    SelfTestFailed,
    SelfTestMessage,
    SelfTestOrder,
    TorchFacts,
)
from contracts.settings import EngineSettings

TIE_FRACTION = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Of the largest logit: what rounding at other places may move one by."""

Tell = Callable[[SelfTestMessage], None]


def run_self_test(order: SelfTestOrder, tell: Tell) -> None:
    """Tell what torch sees, whether both sides agree, and what the kernels are; raises StartupError."""
    tell(look_at_torch(order.settings))
    if not order.prompts:
        return
    reference = Reference(order)
    expected = reference.outputs()
    model_s = reference.took_s
    started_s = time.monotonic()
    with OfflineEngine(order.settings) as engine:
        load_s = time.monotonic() - started_s
        outputs = generate_batched(engine, order)
        engine_s = time.monotonic() - started_s - load_s
        stats, dtype, forward = engine.stats, engine.info.dtype, engine.forward_name
    del engine  # its weights make room for the reference, should it be asked again
    differences = [
        reference.weigh(index, wanted, got)
        for index, (wanted, got) in enumerate(zip(expected, outputs, strict=True))
        if wanted != got
    ]
    tell(
        EqualityReport(
            num_prompts=len(expected),
            num_tokens=sum(map(len, expected)),
            num_equal_tokens=sum(map(common_len, expected, outputs)),
            differences=differences,
            mean_batch_size=round(stats.num_scheduled_seqs / max(1, stats.num_steps), 2),
            dtype=dtype,
            forward=forward,
            reference_s=round(model_s, 3),
            load_s=round(load_s, 3),
            engine_s=round(engine_s, 3),
        )
    )
    tell(look_at_kernels())


def look_at_torch(settings: EngineSettings) -> TorchFacts:
    """Versions and devices, also where the one that is wanted is not there."""
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted_elsewhere = settings.device == "cuda" and num_gpus == 0
    return TorchFacts(
        version=str(torch.__version__),
        cuda_build=torch.version.cuda,
        num_gpus=num_gpus,
        gpu_name=torch.cuda.get_device_name(0) if num_gpus else None,
        device="cuda" if wanted_elsewhere else str(resolve_device(settings.device)),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        num_cores=num_cores(),
    )


class Reference:
    """Plain transformers with the same weights and type; loaded anew whenever it is asked."""

    def __init__(self, order: SelfTestOrder) -> None:
        self._order = order
        self._path = resolve_path(order.settings.model, is_offline=order.settings.offline)
        self._config = read_config(self._path)
        self._dtype = resolve_dtype(order.settings.dtype, self._config)
        self._device = resolve_device(order.settings.device)
        self.took_s = 0.0

    @torch.inference_mode()
    def outputs(self) -> list[list[int]]:
        """The greedy continuation of every prompt, one after the other."""
        started_s = time.monotonic()
        use_threads(self._order.settings.num_threads or num_cores())
        model = self._load()
        found: list[list[int]] = []
        for prompt in self._order.prompts:
            ids = torch.tensor([prompt], device=self._device)
            generated = model.generate(ids, attention_mask=torch.ones_like(ids))  # type: ignore[operator]
            found.append(generated[0, len(prompt) :].tolist())
        self.took_s = time.monotonic() - started_s
        return found

    @torch.inference_mode()
    def weigh(self, index: int, expected: list[int], got: list[int]) -> Difference:
        """How near a tie the two were where they parted."""
        position = common_len(expected, got)
        token_id = got[position] if position < len(got) else -1
        ids = torch.tensor([[*self._order.prompts[index], *expected[:position]]], device=self._device)
        logits = self._load()(ids).logits[0, -1].float()
        is_token = 0 <= token_id < logits.numel()
        gap = float(logits[expected[position]] - logits[token_id]) if is_token else float("inf")
        return Difference(
            prompt_index=index,
            position=position,
            expected_token_id=expected[position],
            token_id=token_id,
            logit_gap=gap,
            tolerance=TIE_FRACTION[self._dtype] * float(logits.abs().max()),
        )

    def _load(self) -> torch.nn.Module:
        try:
            # Named here, for a name in the config could be that of a kernel on the hub.
            model = AutoModelForCausalLM.from_pretrained(
                self._path,
                dtype=self._dtype,
                attn_implementation="eager",
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
            ).to(self._device)
        except UNREADABLE as error:
            raise ModelNotUsable(f"the weights in {self._path} cannot be loaded: {error}") from error
        # Of its own, so that neither an end-of-sequence token nor the sampling that a checkpoint wishes for has a part.
        model.generation_config = GenerationConfig(
            do_sample=False, max_new_tokens=self._order.max_tokens, pad_token_id=0
        )
        loaded: torch.nn.Module = model.eval()
        return loaded


def generate_batched(engine: OfflineEngine, order: SelfTestOrder) -> list[list[int]]:
    """The engine's greedy continuations, all prompts in one continuous batch."""
    sampling = SamplingParams(temperature=0.0, max_tokens=order.max_tokens, ignore_eos=True)
    requests = [
        GenerationRequest(request_id=str(index), prompt_token_ids=prompt, sampling=sampling)
        for index, prompt in enumerate(order.prompts)
    ]
    outputs: list[list[int]] = [[] for _ in requests]
    for delta in engine.generate(requests):
        outputs[int(delta.request_id)] += delta.token_ids
    return outputs


def common_len(expected: list[int], got: list[int]) -> int:
    """Tokens before the first that differs."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(expected, got, strict=False)))


def look_at_kernels() -> KernelReport:
    """Which of the kernels that were used came from the cache on disk."""
    try:
        from numba.core.dispatcher import Dispatcher
    except ImportError as error:
        return KernelReport(num_used=0, num_from_cache=0, num_compiled=0, problem=str(error))
    modules = [module for name, module in sys.modules.items() if name.startswith("batching.kernels.")]
    kernels = {value for module in modules for value in vars(module).values() if isinstance(value, Dispatcher)}
    return KernelReport(
        num_used=sum(len(kernel.signatures) for kernel in kernels),
        num_from_cache=sum(sum(kernel.stats.cache_hits.values()) for kernel in kernels),
        num_compiled=sum(sum(kernel.stats.cache_misses.values()) for kernel in kernels),
    )


def main() -> None:
    """Results go to what was standard output; whatever libraries print goes to standard error."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=SelfTestOrder)
    with os.fdopen(os.dup(1), "wb", buffering=0) as out:
        os.dup2(2, 1)

        def tell(message: SelfTestMessage) -> None:
            out.write(msgspec.json.encode(message) + b"\n")

        try:
            run_self_test(order, tell)
        except QuireError as error:
            tell(SelfTestFailed(message=error.message))


if __name__ == "__main__":
    main()
