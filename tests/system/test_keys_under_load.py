"""Keys change while requests run: what stays valid is never refused, what is gone is refused soon."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contracts.settings import ServerSettings
from tests.system.fake_server import FakeServer, FakeServerOptions, running_server
from tests.system.raw_http import BODY

STEADY = "sk-steady-0123456789"
IN_VARIABLE = "sk-canary-variable-0123456789"
NUM_CLIENTS = 8
WITHIN_S = 20.0


def rotating(number: int) -> str:
    return f"sk-rotating-{number}-0123456789"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    write_keys(path, rotating(0))
    return path


@pytest.fixture(scope="module")
def server(path: Path) -> Iterator[FakeServer]:
    settings = ServerSettings(api_keys=IN_VARIABLE, api_keys_file=str(path))
    with running_server(FakeServerOptions(server=settings)) as server:
        yield server


@pytest.fixture
def outcomes(server: FakeServer) -> Iterator[Counter[int]]:
    """Statuses of requests that run all through the test under a key that stays."""
    statuses: Counter[int] = Counter()
    is_over = threading.Event()

    def run() -> None:
        with server.client() as client:
            client.headers["authorization"] = f"Bearer {STEADY}"
            while not is_over.is_set():
                statuses[client.post("/v1/completions", content=BODY).status_code] += 1

    threads = [threading.Thread(target=run) for _ in range(NUM_CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def write_keys(path: Path, *others: str) -> None:
    """Put a new file with the steady key and these in place."""
    keys = {"steady": STEADY} | {f"other-{number}": key for number, key in enumerate(others)}
    fresh = path.with_suffix(".new")
    fresh.write_text("".join(f'[[keys]]\nlabel = "{label}"\nkey = "{key}"\n' for label, key in keys.items()))
    fresh.chmod(0o600)
    fresh.rename(path)


def rotate(server: FakeServer, path: Path, number: int) -> None:
    """Replace the key before by the one of this number, and wait until both have changed their standing."""
    write_keys(path, rotating(number))
    until(lambda: status_of(server, rotating(number)) == 200)
    assert status_of(server, rotating(number - 1)) == 401


def status_of(server: FakeServer, key: str) -> int:
    with server.client() as client:
        return client.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_rotation_and_a_broken_file_disturb_no_request(server: FakeServer, path: Path, outcomes: Counter[int]) -> None:
    assert status_of(server, rotating(0)) == 200
    rotate(server, path, 1)
    rotate(server, path, 2)
    path.write_text("sk-canary-broken")
    until(lambda: any(line["event"] == "api_keys_kept" for line in server.log_lines()))
    assert [status_of(server, key) for key in (rotating(2), STEADY, IN_VARIABLE)] == [200, 200, 200]
    assert set(outcomes) == {200}
    assert outcomes.total() > 50


def test_no_key_is_in_the_log(server: FakeServer) -> None:
    assert not [line for line in server.log_lines() if "sk-" in str(line)]
    assert {line.get("key") for line in server.log_lines() if line["event"] == "request_finished"} <= {"steady"}
