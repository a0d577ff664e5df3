"""Runs the self-test in a process of its own, and judges what it says. Imports no torch.

A process: torch may be broken, the model may not fit, and whatever happens there must be a finding here.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self, TypeVar

import msgspec

from contracts.checkup import Finding
from contracts.errors import ModelNotUsable
from contracts.model_catalog import ModelProfile
from contracts.self_test import (
    EqualityReport,
    KernelReport,
    SelfTestFailed,
    SelfTestMessage,
    SelfTestOrder,
    TorchFacts,
)
from contracts.settings import EngineSettings
from service.gpu_memory import free_gpu_bytes
from service.model_facts import find_directory
from service.terminal.examination import found
from service.tokenizer import TextTokenizer

MODULE = "batching.self_test"
MAX_TOKENS = 16
TEXTS = (
    "Once upon a time there was a small fox who lived at the edge of a wood.",
    "The three largest cities of the country are",
    "1, 2, 3, 4, 5,",
    "Once upon a time there was a small fox who lived in an old town by the sea, and every morning it walked to the "
    "harbour to see the ships come in. One day",
    "def add(a, b):",
    "Dear friend, thank you for your letter. I was",
)
"""Of different lengths; two begin alike, so that the prefix cache has its part."""
_Message = TypeVar("_Message", TorchFacts, EqualityReport, KernelReport)
_MESSAGE = msgspec.json.Decoder(SelfTestMessage)


class SelfTest:
    """One run of the process. Owner: the `with`, whose end kills what still runs."""

    def __init__(self, order: SelfTestOrder, timeout_s: float, module: str = MODULE) -> None:
        self._order = order
        self._timeout_s = timeout_s
        self._command = [sys.executable, "-P", "-m", module]
        self._messages: list[SelfTestMessage] = []
        self._is_late = False

    def __enter__(self) -> Self:
        """Start it: other checks may be done while it imports torch."""
        self._errors = tempfile.TemporaryFile()
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, stderr=self._errors)  # noqa: S603 (ours)
        self._timer = threading.Timer(self._timeout_s, self._give_up)
        self._timer.daemon = True
        self._timer.start()
        with suppress(BrokenPipeError), _present(self._process.stdin) as pipe_in:  # broken: what it said last tells why
            pipe_in.write(msgspec.json.encode(self._order))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._process.kill()
        self._process.wait()
        _present(self._process.stdout).close()
        self._errors.close()

    def find(self, kind: type[_Message]) -> _Message:
        """The message of a kind, waited for; raises ModelNotUsable with what ended the process before it."""
        for message in self._told():
            if isinstance(message, kind):
                return message
            if isinstance(message, SelfTestFailed):
                raise ModelNotUsable(message.message)
        raise ModelNotUsable(f"The process that computes ended early: {self._why()}.")

    def _told(self) -> Iterator[SelfTestMessage]:
        """What it has said, then what it says next."""
        yield from self._messages
        while line := _present(self._process.stdout).readline():
            self._messages.append(_MESSAGE.decode(line))
            yield self._messages[-1]

    def _give_up(self) -> None:
        self._is_late = True
        self._process.kill()

    def _why(self) -> str:
        if self._is_late:
            return f"it took longer than {self._timeout_s:g} s. Give it more with --timeout-s"
        status = self._process.wait()
        if status == -signal.SIGKILL:
            return "it was killed, most often because memory ran out. Lower --kv-cache-memory, or take a smaller model"
        if status < 0:
            return f"{signal.Signals(-status).name}. torch may not fit this machine's processor or driver"
        self._errors.seek(0)
        return _last_line(self._errors.read()) or f"exit status {status}"


class Answers(Protocol):
    """A SelfTest, or a test's own."""

    def find(self, kind: type[_Message]) -> _Message:
        """The message of a kind; raises StartupError where there is none."""
        ...


def make_order(profile: ModelProfile, common: EngineSettings, *, is_loading: bool) -> SelfTestOrder:
    """The prompts in the model's own tokens; none where the model is not to be loaded."""
    settings = profile.engine_settings(common)
    directory = find_directory(profile.model, is_embedded=profile.is_embedded) if is_loading else None
    prompts = _prompts(directory, settings.max_model_len) if is_loading and directory is not None else []
    return SelfTestOrder(settings=settings, prompts=prompts, max_tokens=MAX_TOKENS)


def _prompts(directory: Path, max_model_len: int | None) -> list[list[int]]:
    tokenizer = TextTokenizer.load(directory)
    longest = None if max_model_len is None else max(1, max_model_len - MAX_TOKENS)
    return [tokenizer.encode(text, add_special_tokens=True)[:longest] for text in TEXTS]


def check_torch(answers: Answers, gpu_bytes: Callable[[], int | None] = free_gpu_bytes) -> Finding:
    """The build fits the device that is wanted and the one that is there."""
    facts = answers.find(TorchFacts)
    build = f"built for CUDA {facts.cuda_build}" if facts.cuda_build else "built for CPUs"
    numbers = {name: value for name, value in msgspec.structs.asdict(facts).items() if name != "gpu_name"}
    if facts.device == "cuda" and facts.num_gpus == 0:
        return found(
            "failed",
            f"torch {facts.version}, {build}, sees no GPU, but --device cuda asks for one.",
            "Give --device cpu, or install the NVIDIA driver and a build of torch for CUDA.",
            **numbers,
        )
    if facts.num_gpus == 0 and gpu_bytes() is not None:
        return found(
            "warning",
            f"This machine has a GPU, but torch {facts.version}, {build}, does not see it: models run on the CPU.",
            "Install a build of torch for CUDA that the driver supports.",
            **numbers,
        )
    if facts.device.startswith("cuda"):
        return found("ok", f"torch {facts.version}, {build}, on {facts.gpu_name}.", gpu_name=facts.gpu_name, **numbers)
    return found(
        "ok",
        f"torch {facts.version}, {build}, on {facts.num_cores} CPU cores with {facts.cpu_capability}.",
        **numbers,
    )


def check_tokens(answers: Answers) -> Finding:
    """The engine's tokens are transformers' own, several requests in one batch."""
    report = answers.find(EqualityReport)
    speed = report.num_tokens / max(report.engine_s, 1e-6)
    numbers: dict[str, int | float | str] = {
        "num_prompts": report.num_prompts,
        "num_tokens": report.num_tokens,
        "num_equal_tokens": report.num_equal_tokens,
        "mean_batch_size": report.mean_batch_size,
        "tokens_per_s": round(speed, 1),
        "load_s": report.load_s,
        "engine_s": report.engine_s,
        "reference_s": report.reference_s,
        "dtype": report.dtype,
        "forward": report.forward,
    }
    told = f"{report.num_prompts} requests in one batch, {report.num_equal_tokens} of {report.num_tokens} tokens"
    real = [difference for difference in report.differences if not difference.is_tie]
    if real:
        first = real[0]
        return found(
            "failed",
            f"{told} equal transformers' own: request {first.prompt_index + 1} gives token {first.token_id} at place "
            f"{first.position + 1} where transformers gives {first.expected_token_id} "
            f"({first.logit_gap:.3g} higher; rounding explains {first.tolerance:.3g}).",
            "Serve with --dtype float32, and report the model and this line: its answers may be wrong.",
            **numbers,
        )
    ties = len(report.differences)
    if ties:
        said = f"{ties} request{'s part' if ties > 1 else ' parts'} at a tie"
        return found("ok", f"{told} equal transformers' own; {said}, as far as {report.dtype} tells.", **numbers)
    return found("ok", f"{told} equal transformers' own ({report.dtype}, {speed:,.0f} tokens/s).", **numbers)


def check_kernels(answers: Answers) -> Finding:
    """The kernels of the CPU are compiled, and stay so."""
    if answers.find(TorchFacts).device.startswith("cuda"):
        return found("skipped", "The model runs on a GPU, which takes torch's own kernels.")
    report = answers.find(KernelReport)
    if report.problem is not None:
        return found(
            "warning",
            f"There are no compiled kernels ({report.problem}): torch's own serve, more slowly.",
            "Run `pip install numba`.",
        )
    numbers = {"num_used": report.num_used, "num_compiled": report.num_compiled}
    if report.num_compiled:
        told = f"{report.num_used} kernels; {report.num_compiled} were compiled just now"
        return found("ok", f"{told}, which the next start need not do.", **numbers)
    return found("ok", f"{report.num_used} kernels came compiled from the cache on disk.", **numbers)


def _present(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ValueError("The stream is no pipe.")
    return stream


def _last_line(errors: bytes) -> str:
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300].rstrip(".") if lines else ""
