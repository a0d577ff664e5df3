"""Runs one level against one server inside one process: a closed loop of clients, or arrivals at given times.

Owns the order in which requests start; knows nothing of statistics or of other processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

import msgspec

from service.bench.client import send_stream
from service.bench.connection import ConnectionPool, encode_request, parse_base_url
from service.bench.health_probe import HealthProbe
from service.bench.records import LoadedRound, RequestRecord
from service.bench.workload import Target, WorkloadSpec, draw_arrivals_s, encode_body, plan_request


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """How hard to load; `rate_per_s` set makes it an open loop."""

    num_clients: int = 1
    rate_per_s: float | None = None
    num_requests: int | None = None
    """In total, over all processes; None runs until `duration_s`."""
    duration_s: float | None = None
    """No request starts later than this; those that run are waited for."""

    @property
    def name(self) -> str:
        """How reports call it."""
        return f"{self.num_clients}" if self.rate_per_s is None else f"{self.rate_per_s:g}/s"


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """One process's part of a level: the requests whose index is `first`, `first + stride`, and so on."""

    target: Target
    spec: WorkloadSpec
    level: Level
    label: str
    """Names the stream of prompts: no two rounds share one."""
    start_at_s: float
    timeout_s: float
    first: int = 0
    stride: int = 1

    @property
    def num_clients(self) -> int:
        """Closed-loop clients in this process."""
        return len(range(self.first, self.level.num_clients, self.stride))

    @property
    def stop_at_s(self) -> float | None:
        """When the last request may start."""
        return None if self.level.duration_s is None else self.start_at_s + self.level.duration_s


class ShareRunner:
    """Owns the connections and records of one share; used once, on one event loop."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._pool = ConnectionPool(parse_base_url(share.target.base_url))
        self._path = "/chat/completions" if share.target.endpoint == "chat" else "/completions"
        self._indexes = self._iterate_indexes()
        self._health = HealthProbe(share.target.base_url, share.target.api_key) if share.first == 0 else None
        self.records: list[RequestRecord] = []

    @property
    def health_s(self) -> list[float]:
        """Latencies of GET /health meanwhile, where this process asked."""
        return [] if self._health is None else self._health.latencies_s

    async def run(self) -> list[RequestRecord]:
        """Wait for the common start, run every request and return the records in order of start."""
        share = self._share
        await asyncio.sleep(max(0.0, share.start_at_s - time.monotonic()))
        async with self._health or contextlib.nullcontext(), asyncio.TaskGroup() as group:
            if share.level.rate_per_s is None:
                for _ in range(share.num_clients):
                    group.create_task(self._run_client())
            else:
                await self._start_arrivals(group, share.level.rate_per_s)
        self._pool.close()
        return self.records

    def _iterate_indexes(self) -> Iterator[int]:
        """Indexes of this share, until the number or the time is used up."""
        share = self._share
        index = share.first
        while share.level.num_requests is None or index < share.level.num_requests:
            if share.stop_at_s is not None and time.monotonic() >= share.stop_at_s:
                return
            yield index
            index += share.stride

    async def _run_client(self) -> None:
        """One closed-loop client: the next request starts when the last one has ended."""
        for index in self._indexes:
            await self._run_request(index, None)

    async def _start_arrivals(self, group: asyncio.TaskGroup, rate_per_s: float) -> None:
        share = self._share
        num_arrivals = share.level.num_requests or int(rate_per_s * (share.level.duration_s or 0)) + 1
        arrivals_s = draw_arrivals_s(share.spec.seed, rate_per_s, num_arrivals)
        for index in range(share.first, num_arrivals, share.stride):
            due_s = share.start_at_s + arrivals_s[index]
            if share.stop_at_s is not None and due_s >= share.stop_at_s:
                return
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            group.create_task(self._run_request(index, due_s))

    async def _run_request(self, index: int, due_s: float | None) -> None:
        share = self._share
        planned = plan_request(share.spec, share.label, index, share.target.prompt_kind)
        body = encode_body(share.target, planned)
        request = encode_request(self._pool.address, "POST", self._path, body, share.target.api_key)
        record = RequestRecord(
            index=index,
            prompt_len=planned.prompt_len,
            output_len=planned.output_len,
            started_s=time.monotonic() if due_s is None else due_s,
        )
        self.records.append(record)
        await send_stream(self._pool, request, record, share.timeout_s)


async def run_share(share: Share) -> LoadedRound:
    """Run one share on the running event loop; the processor time is for the caller to add."""
    runner = ShareRunner(share)
    return LoadedRound(records=await runner.run(), health_s=runner.health_s)
