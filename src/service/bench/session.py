"""A whole run: levels in order, each with a warm-up and rounds that alternate between the servers compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec

from service.bench.metrics import LatencySummary, LevelSummary, Ratio, Slo, pair_ratio, summarize, summarize_latency
from service.bench.records import LoadedRound
from service.bench.runner import Level
from service.bench.workload import Target, WorkloadSpec


class LevelLoader(Protocol):
    """What runs one level once; `Loader` outside tests."""

    def run(self, target: Target, spec: WorkloadSpec, level: Level, label: str) -> LoadedRound:
        """Run one level against one server and return what it did."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """What to run; the first target is the one that the others are compared with."""

    targets: list[Target]
    spec: WorkloadSpec
    levels: list[Level]
    num_rounds: int = 1
    num_warmup_requests: int | None = None
    """Before each level, on each server; None: as many as clients, at most 8."""
    slo: Slo | None = None


class LevelResult(msgspec.Struct, frozen=True, kw_only=True):
    """One level on one server."""

    level: str
    target: str
    summary: LevelSummary
    """Over all rounds."""
    rounds: list[LevelSummary]
    health: LatencySummary | None = None
    """Of GET /health while the level ran, over all rounds."""
    loader_cpu_s: float
    """Processor time of the loader over all rounds, all its processes together."""
    speed_of_first_over_this: Ratio | None = None
    """Output tokens/s of the first server over this one's, round by round; None for the first server itself."""


def count_requests(level: Level) -> int:
    """How many requests a level runs when neither a number nor a duration is given."""
    return max(2 * level.num_clients, 16) if level.rate_per_s is None else max(16, round(10 * level.rate_per_s))


def run_session(session: Session, loader: LevelLoader, announce: Callable[[str], None]) -> Iterator[LevelResult]:
    """Run every level and yield its results, one per target, as soon as the level is done."""
    for level in session.levels:
        if level.num_requests is None and level.duration_s is None:
            level = msgspec.structs.replace(level, num_requests=count_requests(level))
        _warm_up(session, loader, level, announce)
        rounds: dict[str, list[LoadedRound]] = {target.name: [] for target in session.targets}
        for round_index in range(session.num_rounds):
            for target in session.targets:
                announce(f"load {level.name}, round {round_index + 1} of {session.num_rounds}, {target.name}")
                label = f"{level.name}/{round_index}"
                rounds[target.name].append(loader.run(target, session.spec, level, label))
        yield from _judge(session, level, rounds)


def _warm_up(session: Session, loader: LevelLoader, level: Level, announce: Callable[[str], None]) -> None:
    """Requests that nothing is reported of: kernels compile, threads start, connections are proven."""
    wanted = session.num_warmup_requests
    num_requests = min(level.num_clients, 8) if wanted is None else wanted
    if num_requests == 0:
        return
    for target in session.targets:
        announce(f"load {level.name}, warm-up, {target.name}")
        warm_level = Level(num_clients=num_requests, num_requests=num_requests)
        loader.run(target, session.spec, warm_level, f"{level.name}/warm-up")


def _judge(session: Session, level: Level, rounds: dict[str, list[LoadedRound]]) -> Iterator[LevelResult]:
    first_speeds: Sequence[float] = []
    for position, target in enumerate(session.targets):
        records = [one_round.records for one_round in rounds[target.name]]
        summaries = [summarize([one_round], session.slo) for one_round in records]
        speeds = [summary.output_tokens_per_s for summary in summaries]
        first_speeds = speeds if position == 0 else first_speeds
        yield LevelResult(
            level=level.name,
            target=target.name,
            summary=summarize(records, session.slo),
            rounds=summaries,
            health=summarize_latency(
                latency_s for one_round in rounds[target.name] for latency_s in one_round.health_s
            ),
            loader_cpu_s=sum(one_round.cpu_s for one_round in rounds[target.name]),
            speed_of_first_over_this=pair_ratio(first_speeds, speeds) if position else None,
        )
