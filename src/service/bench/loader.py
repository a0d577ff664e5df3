"""Spreads the clients of a level over loader processes and joins their records. Knows nothing of rounds or reports."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType
from typing import Self

import msgspec
import uvloop

from service.bench.records import LoadedRound
from service.bench.runner import Level, Share, run_share
from service.bench.workload import Target, WorkloadSpec
from service.event_loop import keep_collections_short

START_LEAD_S = 0.3
"""Between handing out the shares and the common start, so that no process begins late."""


def run_share_blocking(share: Share) -> LoadedRound:
    """Run one share on an event loop of its own; the entry of a loader process."""
    started_cpu_s = time.process_time()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        loaded = runner.run(run_share(share))
    return msgspec.structs.replace(loaded, cpu_s=time.process_time() - started_cpu_s)


def prepare_process() -> None:
    """Of a loader alone: a pause of its own would count as the server's."""
    keep_collections_short(are_full_ones_wanted=False)


class Loader:
    """One thread in this process, or `num_processes` processes with one thread each; a context manager."""

    def __init__(self, num_processes: int = 1, timeout_s: float = 300.0) -> None:
        self._num_processes = num_processes
        self._timeout_s = timeout_s
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self._num_processes > 1:
            context = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(self._num_processes, mp_context=context, initializer=prepare_process)
            list(self._executor.map(time.sleep, [START_LEAD_S] * self._num_processes))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def run(self, target: Target, spec: WorkloadSpec, level: Level, label: str) -> LoadedRound:
        """Run one level once; the records are in order of index."""
        lead_s = 0.0 if self._executor is None else START_LEAD_S
        start_at_s = time.monotonic() + lead_s
        shares = [
            Share(
                target=target,
                spec=spec,
                level=level,
                label=label,
                start_at_s=start_at_s,
                timeout_s=self._timeout_s,
                first=first,
                stride=self._num_processes,
            )
            for first in range(self._num_processes)
        ]
        mapped = map if self._executor is None else self._executor.map
        rounds = list(mapped(run_share_blocking, shares))
        records = [record for one_round in rounds for record in one_round.records]
        records.sort(key=lambda record: record.index)
        health_s = [latency_s for one_round in rounds for latency_s in one_round.health_s]
        cpu_s = sum(one_round.cpu_s for one_round in rounds)
        return LoadedRound(records=records, health_s=health_s, cpu_s=cpu_s)
