"""Watches a server from a thread of its own while others load it: /health all the time, recovery once the load ends."""

from __future__ import annotations

import asyncio
import threading
import time

import msgspec

from ops.bench.overload_verdict import ProbeRecord
from service.bench.client import fetch_json, send_stream
from service.bench.connection import ConnectionPool, ExchangeFailed, encode_request, parse_base_url
from service.bench.records import RequestRecord
from service.bench.workload import Target, WorkloadSpec, encode_body, plan_request

HEALTH_INTERVAL_S = 0.1
HEALTH_TIMEOUT_S = 5.0
RECOVERY_INTERVAL_S = 0.25
MAX_RECOVERY_WAIT_S = 120.0


class OverloadProbe:
    """Owner: the thread that runs between `start` and `join`; `probes` and `recovery_s` are read after `join`."""

    def __init__(
        self, target: Target, spec: WorkloadSpec, max_ttft_s: float, max_wait_s: float = MAX_RECOVERY_WAIT_S
    ) -> None:
        self._target = target
        self._spec = spec
        self._max_ttft_s = max_ttft_s
        self._max_wait_s = max_wait_s
        self._load_ends_s = float("inf")
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.probes: list[ProbeRecord] = []
        self.recovery_s: float | None = None

    def start(self, load_ends_s: float) -> None:
        """Begin; at the monotonic time `load_ends_s` the last request of the load arrives."""
        self._load_ends_s = load_ends_s
        self._thread.start()

    def join(self) -> None:
        """Wait until the server has recovered, or does not any more."""
        self._thread.join()

    async def _run(self) -> None:
        watching = asyncio.create_task(self._watch_health())
        await asyncio.sleep(max(0.0, self._load_ends_s - time.monotonic()))
        await self._wait_for_recovery()
        watching.cancel()

    async def _watch_health(self) -> None:
        root_url = self._target.base_url.removesuffix("/v1")
        while True:
            started_s = time.monotonic()
            error: str | None = None
            try:
                await fetch_json(root_url, "/health", self._target.api_key, HEALTH_TIMEOUT_S)
            except (ExchangeFailed, OSError, TimeoutError, msgspec.DecodeError) as failure:
                error = str(failure) or type(failure).__name__
            self.probes.append(ProbeRecord(latency_s=time.monotonic() - started_s, error=error))
            await asyncio.sleep(HEALTH_INTERVAL_S)

    async def _wait_for_recovery(self) -> None:
        """Ask again and again; recovered is when an answer starts within the limit."""
        for index in range(int(self._max_wait_s / RECOVERY_INTERVAL_S)):
            record = await self._ask(index)
            if record.error is None and record.ttft_s is not None and record.ttft_s <= self._max_ttft_s:
                self.recovery_s = record.started_s - self._load_ends_s
                return
            if time.monotonic() - self._load_ends_s > self._max_wait_s:
                return
            await asyncio.sleep(RECOVERY_INTERVAL_S)

    async def _ask(self, index: int) -> RequestRecord:
        pool = ConnectionPool(parse_base_url(self._target.base_url))
        planned = plan_request(self._spec, "recovery", index, self._target.prompt_kind)
        body = encode_body(self._target, planned)
        request = encode_request(pool.address, "POST", "/completions", body, self._target.api_key)
        record = RequestRecord(
            index=index, prompt_len=planned.prompt_len, output_len=planned.output_len, started_s=time.monotonic()
        )
        await send_stream(pool, request, record, self._max_wait_s)
        pool.close()
        return record
