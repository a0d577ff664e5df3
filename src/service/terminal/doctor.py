"""All checks of `quire doctor`, in the order in which they are told. Knows no terminal.

What is cheap is checked while the process that computes imports torch; the model is loaded only where it can fit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import msgspec

from contracts.checkup import Finding
from contracts.model_catalog import ModelProfile
from contracts.self_test import SelfTestOrder
from contracts.settings import Settings
from service.compat.dialects import read_dialects
from service.model_catalog import check_models, read_catalog
from service.model_memory import device_memory
from service.terminal.examination import examine, found
from service.terminal.generation_check import Answers, SelfTest, check_kernels, check_tokens, check_torch, make_order
from service.terminal.hub_check import check_hub
from service.terminal.installation import check_packages, check_python
from service.terminal.memory_room import check_memory
from service.terminal.model_files import check_files, check_template, check_tokenizer
from service.terminal.places import check_disk, check_keys, check_port, check_sockets
from service.terminal.span_check import check_traces

NAME_LEN = 10
_BLOCKING = ("model", "files", "memory", "tokenizer")
"""The model is not loaded where one of these failed."""

StartTest = Callable[[SelfTestOrder], AbstractContextManager[Answers]]


class DoctorOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How far the doctor goes."""

    is_quick: bool = False
    """The model is not loaded."""
    timeout_s: float = 600.0
    """For the process that computes."""


def run_checks(settings: Settings, options: DoctorOptions, start_test: StartTest | None = None) -> Iterator[Finding]:
    """Each finding as soon as it is there. `start_test` is a test's own process that computes."""
    yield examine("python", check_python)
    yield examine("packages", check_packages)
    yield examine("port", lambda: check_port(settings.server))
    yield examine("sockets", check_sockets)
    yield examine("disk", lambda: check_disk(settings.server))
    yield examine("keys", lambda: check_keys(settings, os.environ))
    model = examine("model", lambda: _check_declared(settings))
    yield model
    if model.state == "failed":
        return
    profile = read_catalog(settings).default
    on_disk = list(_check_model(settings, profile))
    yield from on_disk
    is_loading = not options.is_quick and all(one.state != "failed" for one in on_disk if one.name in _BLOCKING)
    order = make_order(profile, settings.engine, is_loading=is_loading)
    with start_test(order) if start_test is not None else SelfTest(order, options.timeout_s) as answers:
        yield examine("traces", lambda: check_traces(settings.server))
        yield examine("torch", lambda: check_torch(answers))
        yield from _check_computing(answers, order, options)


def _check_declared(settings: Settings) -> Finding:
    """Everything that `quire serve` refuses before it starts anything; raises StartupError."""
    read_dialects(settings.server.compat)
    catalog = read_catalog(settings)
    check_models(catalog, settings)
    names = ", ".join(catalog.aliases)
    if len(catalog.aliases) == 1:
        return found("ok", f"{names} is served.", num_models=1)
    told = f"{len(catalog.aliases)} models are declared: {names}. {catalog.default_alias} is looked at."
    return found("ok", told, num_models=len(catalog.aliases))


def _check_model(settings: Settings, profile: ModelProfile) -> Iterator[Finding]:
    yield examine("hub", lambda: check_hub(profile, settings.engine))
    yield examine("files", lambda: check_files(profile))
    yield examine("tokenizer", lambda: check_tokenizer(profile))
    yield examine("template", lambda: check_template(profile))
    yield examine("memory", lambda: check_memory(profile, settings.engine, device_memory(settings.engine)))


def _check_computing(answers: Answers, order: SelfTestOrder, options: DoctorOptions) -> Iterator[Finding]:
    if order.prompts:
        yield examine("tokens", lambda: check_tokens(answers))
        yield examine("kernels", lambda: check_kernels(answers))
        return
    why = (
        "--quick loads no model." if options.is_quick else "The model is not loaded: it is not here, or a check failed."
    )
    for name in ("tokens", "kernels"):
        yield examine(name, lambda: found("skipped", why))
