"""`quire bench` from options to report: sessions with a fake loader, whole commands against a fake server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner

from ops.bench.fake_server import FakeServer
from service.bench.command import bench_command, hide_key
from service.bench.metrics import Slo
from service.bench.options import parse_counts, parse_range, parse_rates, parse_slo, parse_url
from service.bench.records import LoadedRound, RequestRecord
from service.bench.report import HEADINGS, build_table, list_notes
from service.bench.runner import Level
from service.bench.session import LevelResult, Session, run_session
from service.bench.workload import LengthRange, Target, WorkloadSpec


class FakeLoader:
    """Every request takes a second and brings `tokens` of its target; keeps the order of its calls."""

    def __init__(self, tokens: dict[str, int]) -> None:
        self._tokens = tokens
        self.calls: list[tuple[str, str, int]] = []

    def run(self, target: Target, spec: WorkloadSpec, level: Level, label: str) -> LoadedRound:
        """One record, as if the level were one request."""
        self.calls.append((target.name, label, level.num_requests or 0))
        record = RequestRecord(
            index=0,
            prompt_len=1,
            output_len=10,
            started_s=0.0,
            first_text_s=0.5,
            last_text_s=0.9,
            finished_s=1.0,
            completion_tokens=self._tokens[target.name],
        )
        return LoadedRound(records=[record], cpu_s=0.9)


@pytest.fixture
def base_url() -> Iterator[str]:
    """The fake server on an event loop of its own thread, as the command has one too."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = FakeServer()
    yield asyncio.run_coroutine_threadsafe(server.start(), loop).result()
    asyncio.run_coroutine_threadsafe(server.close(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def make_session(num_rounds: int = 2, num_warmup_requests: int | None = 0) -> Session:
    """Two servers, one level of 12 clients."""
    targets = [Target(name=name, base_url=f"http://{name}/v1", model="m", api_key="secret") for name in "AB"]
    return Session(
        targets=targets,
        spec=WorkloadSpec(),
        levels=[Level(num_clients=12)],
        num_rounds=num_rounds,
        num_warmup_requests=num_warmup_requests,
    )


def run(session: Session, loader: FakeLoader) -> list[LevelResult]:
    """Run a session in silence."""
    return list(run_session(session, loader, lambda text: None))


def test_rounds_alternate_between_servers_with_the_same_prompts() -> None:
    """A B A B; the default number of requests is twice the clients."""
    loader = FakeLoader({"A": 20, "B": 10})
    run(make_session(), loader)
    assert loader.calls == [("A", "12/0", 24), ("B", "12/0", 24), ("A", "12/1", 24), ("B", "12/1", 24)]


def test_warm_up_comes_before_the_first_round_and_is_not_counted() -> None:
    """As many requests as clients, at most eight."""
    loader = FakeLoader({"A": 20, "B": 10})
    results = run(make_session(num_rounds=1, num_warmup_requests=None), loader)
    assert loader.calls[:2] == [("A", "12/warm-up", 8), ("B", "12/warm-up", 8)]
    assert [result.summary.num_requests for result in results] == [1, 1]


def test_ratio_is_that_of_the_first_server_over_the_other() -> None:
    """The first server has none."""
    first, second = run(make_session(), FakeLoader({"A": 20, "B": 10}))
    assert first.speed_of_first_over_this is None
    assert second.speed_of_first_over_this is not None
    assert second.speed_of_first_over_this.median == 2.0


def test_table_has_a_row_per_level_and_server() -> None:
    """And a column for the ratio only in paired runs."""
    results = run(make_session(), FakeLoader({"A": 20, "B": 10}))
    table = build_table(results)
    assert table.row_count == 2
    assert len(table.columns) == len(HEADINGS) + 2
    assert list(table.columns[-1].cells) == ["", "2.00x (2.00-2.00)"]


def test_notes_tell_of_a_busy_loader_and_short_answers() -> None:
    """What makes a figure doubtful is said beside it."""
    results = run(make_session(num_rounds=1), FakeLoader({"A": 20, "B": 9}))
    assert list_notes(results[0]) == ["load 12, A: the loader took 0.9 s of processor in 1.0 s"]
    assert "1 answers are shorter than asked for" in list_notes(results[1])[0]


@pytest.mark.parametrize(("text", "value"), [("32-512", LengthRange(32, 512)), ("64", LengthRange(64, 64))])
def test_ranges_are_read(text: str, value: LengthRange) -> None:
    """One number is a range of one."""
    assert parse_range(text) == value


def test_sweeps_and_limits_are_read() -> None:
    """As typed on the command line."""
    assert parse_counts("1,8,32") == [1, 8, 32]
    assert parse_rates("0.5,2") == [0.5, 2.0]
    assert parse_slo("ttft=500,itl=50") == Slo(ttft=500, itl=50)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prompt-tokens", "512-32"], "does not rise"),
        (["--prompt-tokens", "a"], "not a range"),
        (["--clients", "0,1"], "below 1"),
        (["--clients", "x"], "not a list"),
        (["--rate", "0"], "not above 0"),
        (["--rate", "x"], "not a list"),
        (["--slo", "speed=3"], "known are ttft, itl, tpot, e2e"),
        (["--slo", "ttft"], "no limit in ms"),
        (["--requests", "1", "--duration", "1"], "not both"),
        (["--endpoint", "chat", "--prompt-kind", "ids"], "chat takes text only"),
    ],
)
def test_unusable_options_are_refused_with_the_remedy(arguments: list[str], words: str) -> None:
    """Exit code 2, before anything is sent."""
    result = CliRunner().invoke(bench_command, arguments)
    assert result.exit_code == click.UsageError.exit_code
    assert words in " ".join(result.output.replace("│", " ").split())


def test_missing_server_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    """No traceback, no report."""
    report = tmp_path / "report.json"
    result = CliRunner().invoke(bench_command, ["--base-url", "http://127.0.0.1:1/v1", "--json", str(report)])
    assert result.exit_code == 1
    assert "http://127.0.0.1:1/v1 does not answer" in result.output
    assert not report.exists()


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (["bench", "--api-key", "sk-1", "--seed", "2"], ["bench", "--api-key", "***", "--seed", "2"]),
        (["bench", "--api-key=sk-1"], ["bench", "--api-key=***"]),
    ],
)
def test_key_stays_out_of_the_report(arguments: list[str], kept: list[str]) -> None:
    """The JSON file holds the command line."""
    assert hide_key(arguments) == kept


def test_paired_run_prints_the_table_and_writes_the_report(tmp_path: Path, base_url: str) -> None:
    """Everything in the JSON but the key."""
    report = tmp_path / "report.json"
    arguments = ["--base-url", base_url, "--compare", base_url, "--clients", "2", "--requests", "4", "--rounds", "2"]
    arguments += ["--api-key", "sk-1", "--json", str(report), "--slo", "ttft=60000"]
    result = CliRunner().invoke(bench_command, arguments)
    assert result.exit_code == 0, result.output
    assert "A over this" in result.output
    written = msgspec.json.decode(report.read_bytes())
    assert [(row["target"], row["summary"]["num_requests"], len(row["rounds"])) for row in written["results"]] == [
        ("A", 8, 2),
        ("B", 8, 2),
    ]
    assert written["targets"][0]["model"] == "fake"
    assert b"sk-1" not in report.read_bytes()


def test_failed_requests_are_told_and_set_the_exit_code(base_url: str) -> None:
    """The first words of the failure and how often."""
    result = CliRunner().invoke(bench_command, ["--base-url", base_url, "--model", "refuse", "--clients", "2"])
    assert result.exit_code == 1
    assert "load 2, server: 16 failed: HTTP 503: queue is full" in result.output


def test_open_loop_over_two_processes_runs_every_request(tmp_path: Path, base_url: str) -> None:
    """Arrivals are dealt out, none is lost or doubled."""
    report = tmp_path / "report.json"
    arguments = ["--base-url", base_url, "--rate", "400", "--requests", "40", "--processes", "2"]
    result = CliRunner().invoke(bench_command, [*arguments, "--json", str(report)])
    assert result.exit_code == 0, result.output
    summary = msgspec.json.decode(report.read_bytes())["results"][0]["summary"]
    assert (summary["num_requests"], summary["num_failed"]) == (40, 0)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://a:1", "http://a:1/v1"),
        ("http://a:1/", "http://a:1/v1"),
        ("http://a:1/v1/", "http://a:1/v1"),
        ("https://a/deep/v1", "https://a/deep/v1"),
    ],
)
def test_base_url_without_a_path_means_v1(text: str, url: str) -> None:
    assert parse_url(text) == url


def test_base_url_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="is not http://HOST:PORT/PATH"):
        parse_url("127.0.0.1:8000")
