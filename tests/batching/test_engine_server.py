"""The engine's socket: one frame per step and worker, and no worker can harm the engine or another worker."""

from __future__ import annotations

import asyncio
import random
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from batching import engine_server
from batching.engine_server import EngineServer
from contracts.errors import EngineError, InvalidValue
from contracts.frames import (
    BEAT_S,
    Abort,
    Admitted,
    Alive,
    Beat,
    Deltas,
    EngineBound,
    FrameReader,
    Hello,
    Message,
    Refused,
    Submit,
    WorkerBound,
    encode_frame,
)
from contracts.generation import FinishReason, GenerationDelta
from tests.batching.engine_rig import PATIENCE_S, Rig, finals_of, in_process, listening, tokens_of, until
from tests.batching.real_engine import request_of


class Peer:
    """A worker that says and reads exactly what the test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._frames = FrameReader(WorkerBound)
        self._received: list[Message] = []

    def send(self, message: EngineBound) -> None:
        self.writer.write(encode_frame(message))

    def submit(self, request_id: str, **options: Any) -> None:
        self.send(Submit(request_of(request_id, [1, 2, 3], **({"max_tokens": 4} | options))))

    async def receive(self, *, with_beats: bool = False) -> Message | None:
        """The next message; None when the engine has closed the connection."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                while not self._received:
                    data = await self._read()
                    if not data:
                        return None
                    self._received = self._frames.feed(data)
                message = self._received.pop(0)
                if with_beats or not isinstance(message, Beat):
                    return message

    async def _read(self) -> bytes:
        try:
            return await self._reader.read(65536)
        except ConnectionError:
            return b""

    async def deltas(self, num_finals: int) -> list[GenerationDelta]:
        """All deltas until so many samples have ended."""
        deltas: list[GenerationDelta] = []
        while len(finals_of(deltas)) < num_finals:
            message = await self.receive()
            assert message is not None
            deltas += message.deltas if isinstance(message, Deltas) else []
        return deltas


def num_open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with in_process() as rig:
        yield rig


@pytest.fixture
async def server(rig: Rig, path: Path) -> AsyncIterator[EngineServer]:
    async with listening(rig, path) as server:
        yield server


@asynccontextmanager
async def greeted(path: Path) -> AsyncIterator[Peer]:
    """A worker that has had its Hello."""
    peer = Peer(*await asyncio.open_unix_connection(str(path)))
    assert isinstance(await peer.receive(), Hello)
    yield peer
    peer.writer.close()
    await asyncio.gather(peer.writer.wait_closed(), return_exceptions=True)


@pytest.fixture
async def peer(server: EngineServer, path: Path) -> AsyncIterator[Peer]:
    async with greeted(path) as peer:
        yield peer


@pytest.fixture
async def other(server: EngineServer, path: Path) -> AsyncIterator[Peer]:
    async with greeted(path) as peer:
        yield peer


async def test_first_word_says_what_is_served(rig: Rig, server: EngineServer, path: Path) -> None:
    peer = Peer(*await asyncio.open_unix_connection(str(path)))
    assert await peer.receive() == Hello(rig.engine.info, rig.engine.stats())
    peer.writer.close()


@pytest.mark.usefixtures("server")
def test_only_this_user_may_open_the_socket(path: Path) -> None:
    mode = path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


async def test_files_made_later_have_their_usual_rights(rig: Rig, path: Path) -> None:
    path.with_name("before").touch()
    async with listening(rig, path):
        path.with_name("after").touch()
    assert path.with_name("after").stat().st_mode == path.with_name("before").stat().st_mode


async def test_socket_of_a_killed_engine_is_replaced(rig: Rig, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with listening(rig, path), greeted(path) as peer:
        peer.submit("a")
        assert finals_of(await peer.deltas(1)) == [(0, FinishReason.LENGTH)]
    assert not path.exists()


async def test_each_step_is_one_frame_for_each_worker(rig: Rig, peer: Peer, other: Peer) -> None:
    await rig.submit_and_hold("plug", max_tokens=1)
    for name in ("a", "b"):
        peer.submit(name)
        other.submit(f"other {name}")
    await until(lambda: rig.scheduler.num_waiting == 4)
    rig.runner.gate.set()
    for worker in (peer, other):
        messages = [await worker.receive() for _ in range(2 + 4)]
        assert [type(message) for message in messages] == [Admitted, Admitted, Deltas, Deltas, Deltas, Deltas]
        assert [len(message.deltas) for message in messages if isinstance(message, Deltas)] == [2] * 4
    assert rig.runner.num_steps == 1 + 4


async def test_each_worker_gets_its_own_requests_only(peer: Peer, other: Peer) -> None:
    peer.submit("a")
    other.submit("b")
    assert {delta.request_id for delta in await peer.deltas(1)} == {"a"}
    assert {delta.request_id for delta in await other.deltas(1)} == {"b"}


NOISE = [
    b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"\xff" * 100,
    b"\x00\x00\x00\x00",
    b"\x00\x00\x00\x05\xdd\xff\xff\xff\xff",
    encode_frame(Alive()),
    encode_frame(Submit(request_of("x", [1]))).replace(b"max_tokens", b"max_tokenz").replace(b"prompt", b"tpmorp"),
    *[b"\x00\x00\x00\x28" + random.Random(seed).randbytes(40) for seed in range(10)],
]


@pytest.mark.parametrize("noise", NOISE)
async def test_noise_costs_its_sender_alone(rig: Rig, peer: Peer, other: Peer, noise: bytes) -> None:
    other.submit("good", max_tokens=50)
    peer.submit("of the noisy one", max_tokens=100)
    assert await peer.receive() == Admitted("of the noisy one")
    peer.writer.write(noise)
    while await peer.receive() is not None:
        pass
    assert tokens_of(await other.deltas(1)) == list(range(3, 53))
    await rig.until_nothing_is_left()
    assert rig.engine.stats().is_alive


async def test_frame_that_never_ends_holds_nobody_up(rig: Rig, peer: Peer, other: Peer) -> None:
    peer.writer.write(encode_frame(Submit(request_of("x", [1])))[:-1])
    other.submit("good")
    assert finals_of(await other.deltas(1)) == [(0, FinishReason.LENGTH)]
    assert rig.engine.stats().num_requests == 1


async def test_worker_cannot_abort_what_another_asked_for(rig: Rig, peer: Peer, other: Peer) -> None:
    rig.runner.gate.clear()
    other.submit("a")
    assert await other.receive() == Admitted("a")
    peer.send(Abort("a"))
    peer.submit("after")  # answered, so that the abort has been handled
    assert await peer.receive() == Admitted("after")
    rig.runner.gate.set()
    assert finals_of(await other.deltas(1)) == [(0, FinishReason.LENGTH)]


async def test_worker_cannot_take_over_the_id_of_another(rig: Rig, peer: Peer, other: Peer) -> None:
    rig.runner.gate.clear()
    other.submit("a")
    assert await other.receive() == Admitted("a")
    peer.submit("a")
    refused = await peer.receive()
    assert isinstance(refused, Refused)
    assert type(refused.error.to_error()) is InvalidValue
    peer.writer.close()
    await asyncio.sleep(0.05)
    rig.runner.gate.set()
    assert finals_of(await other.deltas(1)) == [(0, FinishReason.LENGTH)]


async def test_id_may_be_used_again_in_the_same_breath_as_its_abort(rig: Rig, peer: Peer) -> None:
    """The end of the first is said before the admission of the second."""
    await rig.submit_and_hold("plug")
    peer.submit("a")
    assert await peer.receive() == Admitted("a")
    peer.writer.write(encode_frame(Abort("a")) + encode_frame(Submit(request_of("a", [1, 2, 3], max_tokens=1))))
    ended, admitted = await peer.receive(), await peer.receive()
    assert isinstance(ended, Deltas)
    assert finals_of(ended.deltas) == [(0, FinishReason.ABORT)]
    assert admitted == Admitted("a")
    rig.runner.gate.set()
    assert finals_of(await peer.deltas(1)) == [(0, FinishReason.LENGTH)]


@pytest.mark.parametrize("is_held", [True, False])
async def test_worker_that_leaves_has_its_requests_aborted(rig: Rig, peer: Peer, other: Peer, is_held: bool) -> None:
    rig.runner.gate.clear() if is_held else rig.runner.gate.set()
    other.submit("stays", max_tokens=2)
    for index in range(8):
        peer.submit(str(index), num_samples=2, max_tokens=100)
    await until(lambda: rig.engine.stats().num_requests == 9)
    peer.writer.close()
    await until(lambda: rig.engine.stats().num_aborted > 0)
    rig.runner.gate.set()
    assert finals_of(await other.deltas(1)) == [(0, FinishReason.LENGTH)]
    await rig.until_nothing_is_left()


async def test_worker_that_does_not_read_is_cut_off(
    rig: Rig, peer: Peer, other: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_server, "MAX_UNSENT_BYTES", 2000)
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # there is no public way to stop a reader
    for index in range(8):
        peer.submit(f"unread {index}", max_tokens=110)
    await until(lambda: rig.engine.stats().num_aborted > 0)
    other.submit("good", max_tokens=50)
    assert tokens_of(await other.deltas(1)) == list(range(3, 53))
    await rig.until_nothing_is_left()
    peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
    while await peer.receive() is not None:
        pass


@pytest.fixture
def low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine waits for a worker after a few frames that the kernel does not take."""
    monkeypatch.setattr(engine_server, "HOLD_ABOVE_BYTES", 2000)
    monkeypatch.setattr(engine_server, "GO_ON_BELOW_BYTES", 500)


async def test_engine_waits_for_a_worker_that_is_slow(
    low_limits: None, monkeypatch: pytest.MonkeyPatch, rig: Rig, peer: Peer
) -> None:
    monkeypatch.setattr(engine_server, "STALL_S", 3600.0)
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for index in range(8):
        peer.submit(f"slow {index}", max_tokens=110)
    await until(lambda: rig.engine.is_held)
    num_steps = rig.runner.num_steps
    await asyncio.sleep(0.2)
    assert rig.runner.num_steps <= num_steps + 1, "only the step that was under way may end while the engine waits"
    assert rig.engine.stats().num_finished < 8
    peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
    deltas = await peer.deltas(8)
    for index in range(8):
        assert tokens_of([d for d in deltas if d.request_id == f"slow {index}"]) == list(range(3, 113))
    await rig.until_nothing_is_left()


async def test_worker_for_which_the_engine_waits_in_vain_is_cut_off(
    low_limits: None, monkeypatch: pytest.MonkeyPatch, rig: Rig, peer: Peer, other: Peer
) -> None:
    monkeypatch.setattr(engine_server, "STALL_S", 0.2)
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for index in range(8):
        peer.submit(f"unread {index}", max_tokens=110)
    await until(lambda: rig.engine.is_held)
    other.submit("good", max_tokens=50)
    assert tokens_of(await other.deltas(1)) == list(range(3, 53))
    assert rig.engine.stats().num_aborted > 0
    await rig.until_nothing_is_left()


async def test_trouble_in_an_admission_costs_that_request_alone(
    rig: Rig, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(rig.scheduler, "submit", None)
        peer.submit("a")
        refused = await peer.receive()
    assert isinstance(refused, Refused)
    error = refused.error.to_error()
    assert type(error) is EngineError
    assert "NoneType" not in error.message
    peer.submit("a")
    assert finals_of(await peer.deltas(1)) == [(0, FinishReason.LENGTH)]


async def test_engine_beats_while_a_step_takes_long(rig: Rig, peer: Peer) -> None:
    rig.runner.gate.clear()
    peer.submit("a")
    assert await peer.receive() == Admitted("a")
    async with asyncio.timeout(10 * BEAT_S):
        beats = [await peer.receive(with_beats=True) for _ in range(3)]
    assert {type(beat) for beat in beats} == {Beat}
    assert isinstance(beats[-1], Beat)
    assert beats[-1].stats.num_running == 1


async def test_stop_says_what_is_left_to_say(rig: Rig, server: EngineServer, peer: Peer) -> None:
    rig.runner.gate.clear()
    peer.submit("a", num_samples=2, max_tokens=50)
    assert await peer.receive() == Admitted("a")
    rig.engine.abort("a")
    await server.stop()
    assert finals_of(await peer.deltas(2)) == [(0, FinishReason.ABORT), (1, FinishReason.ABORT)]
    assert await peer.receive() is None


async def test_rest_of_the_engine_is_told_at_once(rig: Rig, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_server, "BEAT_S", 3600.0)
    await asyncio.sleep(BEAT_S)  # the last beat that comes by the clock
    peer.submit("a")
    await until(lambda: rig.engine.stats().num_finished == 1)
    await rig.until_nothing_is_left()
    while (message := await peer.receive(with_beats=True)) != Beat(rig.engine.stats()):
        assert message is not None


async def test_stop_waits_for_a_worker_that_still_reads(rig: Rig, server: EngineServer, peer: Peer) -> None:
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for index in range(8):
        peer.submit(f"late {index}", max_tokens=110)
    await until(lambda: rig.engine.stats().num_finished == 8)
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0.05)
    peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
    assert len(finals_of(await peer.deltas(8))) == 8
    await stopping


async def test_stop_does_not_wait_long_for_a_worker_that_does_not_read(
    rig: Rig, server: EngineServer, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_server, "FLUSH_S", 0.05)
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for index in range(8):
        peer.submit(f"unread {index}", max_tokens=110)
    await until(lambda: rig.engine.stats().num_finished == 8)
    async with asyncio.timeout(2.0):
        await server.stop()


async def test_workers_that_come_and_go_leave_no_file_open(rig: Rig, server: EngineServer, path: Path) -> None:
    num_before = num_open_files()
    for index in range(50):
        async with greeted(path) as peer:
            peer.submit(str(index), max_tokens=50)
    await until(lambda: num_open_files() == num_before)
    await until(lambda: rig.engine.stats().num_requests == 50)
    await rig.until_nothing_is_left()
