"""The clients of a soak: each sends one planned request after another, gives up as planned, and says how it ended.

Owns connections and outcomes; knows nothing of processes, memory or verdicts.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import socket
import time
from collections.abc import AsyncIterator, Callable

import httpx
import msgspec

from ops.soak.traffic import AbortPhase, Kind, SoakRequest
from service.bench.sse_parser import DONE, EventSplitter, decode_event, describe_error

REQUEST_TIMEOUT_S = 300.0
RECEIVE_BUFFER_BYTES = 8192
"""Small, so that a slow reader holds the server up and not the kernel of its own side."""
OVERLOAD_PAUSE_S = 0.2
MAX_DETAIL_CHARS = 200


class Ending(enum.Enum):
    """How a request ended."""

    FINISHED = "finished"
    ABORTED = "given up by the client"
    REFUSED = "refused, try later"
    REJECTED = "invalid, and told so"
    WRONG = "wrong"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One request's end; `detail` says what was wrong."""

    kind: Kind
    ending: Ending
    started_s: float
    """Monotonic."""
    first_byte_s: float | None = None
    """Seconds from sending to the first bytes of the body."""
    detail: str = ""


class GivenUp(Exception):
    """The client's own decision to leave; closes the connection on its way out."""


class WrongAnswer(Exception):
    """The server's answer is not what the request asked for."""


class StreamCheck:
    """Whether a stream is whole: every sample ended once, then one [DONE], and nothing after it."""

    def __init__(self, num_samples: int) -> None:
        self.num_events = 0
        self._splitter = EventSplitter()
        self._open_samples = num_samples
        self._is_done = False

    def feed(self, data: bytes) -> None:
        """Take body bytes. Raises WrongAnswer."""
        for payload in self._splitter.feed(data):
            self.num_events += 1
            if self._is_done:
                raise WrongAnswer("an event after [DONE]")
            if payload == DONE:
                self._is_done = True
            else:
                self._take(payload)

    def _take(self, payload: bytes) -> None:
        try:
            event = decode_event(payload)
        except msgspec.DecodeError as error:
            raise WrongAnswer(f"no event: {payload[:80]!r}") from error
        if event.error is not None:
            raise WrongAnswer(f"error in the stream: {describe_error(event.error)}")
        self._open_samples -= sum(choice.finish_reason is not None for choice in event.choices)

    def close(self) -> None:
        """The body is over. Raises WrongAnswer."""
        if not self._is_done or self._open_samples != 0:
            raise WrongAnswer(f"stream ended with {self._open_samples} samples open, [DONE]: {self._is_done}")


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """A head that arrived: status, and when the first bytes of the body did."""

    status: int
    first_byte_s: float | None = None
    body: bytes = b""


class SoakClients:
    """The clients together; a context manager around their connections. `outcomes` grows while they run."""

    def __init__(self, base_url: str, api_key: str | None, plan: Callable[[int], SoakRequest]) -> None:
        headers = {"content-type": "application/json"}
        if api_key is not None:
            headers["authorization"] = f"Bearer {api_key}"
        options = [(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)]
        self._clients = [
            httpx.AsyncClient(headers=headers, timeout=REQUEST_TIMEOUT_S, transport=transport)
            for transport in (httpx.AsyncHTTPTransport(), httpx.AsyncHTTPTransport(socket_options=options))
        ]
        self._base_url = base_url
        self._plan = plan
        self._indexes = itertools.count()
        self.outcomes: list[Outcome] = []

    async def run(self, num_clients: int, duration_s: float) -> None:
        """Keep `num_clients` requests in flight; none starts after the time, those in flight are waited for."""
        stop_at_s = time.monotonic() + duration_s
        async with asyncio.TaskGroup() as group:
            for _ in range(num_clients):
                group.create_task(self._run_client(stop_at_s))

    async def close(self) -> None:
        """Close every connection."""
        for client in self._clients:
            await client.aclose()

    async def _run_client(self, stop_at_s: float) -> None:
        while time.monotonic() < stop_at_s:
            outcome = await self._run_request(self._plan(next(self._indexes)))
            self.outcomes.append(outcome)
            if outcome.ending is Ending.REFUSED:
                await asyncio.sleep(OVERLOAD_PAUSE_S)

    async def _run_request(self, request: SoakRequest) -> Outcome:
        """Run one request to its end or to where its client leaves."""
        started_s = time.monotonic()
        answered: Answered | None = None
        try:
            answered = await self._send_until_given_up(request)
            ending, detail = judge_answer(request, answered), ""
        except GivenUp:
            ending, detail = Ending.ABORTED, ""
        except WrongAnswer as error:
            ending, detail = Ending.WRONG, str(error)
        except (httpx.HTTPError, OSError) as error:
            ending, detail = Ending.WRONG, f"{type(error).__name__}: {error}"
        return Outcome(
            kind=request.kind,
            ending=ending,
            started_s=started_s,
            first_byte_s=None if answered is None else answered.first_byte_s,
            detail=f"{request.kind.value}: {detail}"[:MAX_DETAIL_CHARS] if detail else "",
        )

    async def _send_until_given_up(self, request: SoakRequest) -> Answered:
        abort = request.abort
        if abort is None or abort.after_events is not None or abort.phase is AbortPhase.UPLOAD:
            return await self._send(request)
        try:
            async with asyncio.timeout(abort.after_s):
                return await self._send(request)
        except TimeoutError:
            raise GivenUp from None

    async def _send(self, request: SoakRequest) -> Answered:
        started_s = time.monotonic()
        client = self._clients[request.kind is Kind.SLOW_READER]
        is_cut = request.abort is not None and request.abort.phase is AbortPhase.UPLOAD
        content: bytes | AsyncIterator[bytes] = _upload_half(request) if is_cut else request.body
        check = StreamCheck(request.num_samples)
        first_byte_s: float | None = None
        body = b""
        async with client.stream("POST", f"{self._base_url}{request.path}", content=content) as reply:
            is_checked = request.is_streamed and reply.status_code == httpx.codes.OK
            async for data in reply.aiter_raw():
                first_byte_s = time.monotonic() - started_s if first_byte_s is None else first_byte_s
                if is_checked:
                    check.feed(data)
                    _leave_after_events(request, check.num_events)
                else:
                    body += data
                await asyncio.sleep(request.pause_s)
        if is_checked:
            check.close()
        return Answered(status=reply.status_code, first_byte_s=first_byte_s, body=body)


async def _upload_half(request: SoakRequest) -> AsyncIterator[bytes]:
    """Half of the body, a pause, and then nobody there."""
    yield request.body[: len(request.body) // 2]
    await asyncio.sleep(request.abort.after_s if request.abort else 0.0)
    raise GivenUp


def _leave_after_events(request: SoakRequest, num_events: int) -> None:
    limit = request.abort.after_events if request.abort is not None else None
    if limit is not None and num_events >= limit:
        raise GivenUp


def judge_answer(request: SoakRequest, answered: Answered) -> Ending:
    """Whether a whole answer fits its request. Raises WrongAnswer."""
    status = answered.status
    if status in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE):
        return Ending.REFUSED
    if request.kind is Kind.INVALID:
        if not 400 <= status < 500 or b'"error"' not in answered.body:
            raise WrongAnswer(f"HTTP {status} instead of a refusal: {answered.body[:80]!r}")
        return Ending.REJECTED
    if status != httpx.codes.OK:
        raise WrongAnswer(f"HTTP {status}: {answered.body[:120]!r}")
    if not request.is_streamed and b'"finish_reason"' not in answered.body:
        raise WrongAnswer(f"no choice in the answer: {answered.body[:80]!r}")
    return Ending.FINISHED
