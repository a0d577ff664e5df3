"""What a soak calls a leak, on samples made by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.soak.clients import Ending, Outcome
from ops.soak.gauges import count_preemptions, is_idle, list_numbers, pick_idle_gauges
from ops.soak.processes import ProcessSample, TreeSample, describe_command
from ops.soak.report import compare_quarters, pick_rows
from ops.soak.traffic import Kind
from ops.soak.verdict import Idle, compare_idle, fit_slope, judge_memory, judge_outcomes

MIB = 2**20
GAUGES = {"health.running": 0.0, "health.free_blocks": 256.0, "stats.num_requests": 10.0}


def make_process(pid: int = 1, rss_bytes: int = 100 * MIB, num_fds: int = 20, num_threads: int = 9) -> ProcessSample:
    return ProcessSample(pid=pid, name="quire serve", rss_bytes=rss_bytes, num_fds=num_fds, num_threads=num_threads)


def make_idle(*processes: ProcessSample, gauges: dict[str, float] = GAUGES) -> Idle:
    return Idle(tree=TreeSample(at_s=0.0, processes=list(processes)), gauges=gauges)


def find_leaks(before: Idle, after: Idle) -> list[str]:
    return [f"{check.name}: {check.found}" for check in compare_idle(before, after) if not check.is_ok]


def test_unchanged_server_has_no_leak() -> None:
    assert find_leaks(make_idle(make_process()), make_idle(make_process(rss_bytes=200 * MIB))) == []


def test_fewer_descriptors_are_no_leak() -> None:
    assert find_leaks(make_idle(make_process()), make_idle(make_process(num_fds=18))) == []


def test_descriptor_and_thread_that_stay_are_leaks() -> None:
    after = make_idle(make_process(num_fds=21, num_threads=10))
    assert find_leaks(make_idle(make_process()), after) == [
        "file descriptors of 1, quire serve: 21",
        "threads of 1, quire serve: 10",
    ]


def test_replaced_process_is_told() -> None:
    before, after = make_idle(make_process(1), make_process(2)), make_idle(make_process(1), make_process(3))
    assert find_leaks(before, after) == ["processes: gone: quire serve (2), come: quire serve (3)"]


@pytest.mark.parametrize(("name", "value"), [("health.free_blocks", 255.0), ("health.running", 1.0)])
def test_gauge_that_does_not_return_is_a_leak(name: str, value: float) -> None:
    after = make_idle(make_process(), gauges={**GAUGES, name: value})
    assert find_leaks(make_idle(make_process()), after) == [f"{name}: {value:g}"]


def test_gauge_that_vanished_is_a_leak() -> None:
    after = make_idle(make_process(), gauges={"health.running": 0.0})
    assert find_leaks(make_idle(make_process()), after) == ["health.free_blocks: nothing"]


def test_counters_may_grow() -> None:
    assert "stats.num_requests" not in pick_idle_gauges(GAUGES)


def make_course(num_samples: int, interval_s: float, mib_per_sample: float) -> list[TreeSample]:
    return [
        TreeSample(
            at_s=index * interval_s,
            processes=[make_process(rss_bytes=round((1000 + index * mib_per_sample) * MIB))],
        )
        for index in range(num_samples)
    ]


@given(
    num_samples=st.integers(6, 200),
    interval_s=st.floats(0.1, 60),
    mib_per_sample=st.floats(-3, 10),
)
def test_slope_of_a_straight_line_is_its_own(num_samples: int, interval_s: float, mib_per_sample: float) -> None:
    slope = fit_slope(make_course(num_samples, interval_s, mib_per_sample))
    assert slope is not None
    assert slope.bytes_per_hour == pytest.approx(
        3600 / interval_s * mib_per_sample * MIB, rel=1e-3, abs=3600 / interval_s
    )


def test_growth_of_the_first_half_does_not_count() -> None:
    course = make_course(10, 360, 50) + [
        TreeSample(at_s=3600 + index * 360, processes=[make_process(rss_bytes=1500 * MIB)]) for index in range(12)
    ]
    slope = fit_slope(course)
    assert slope is not None
    assert slope.bytes_per_hour == pytest.approx(0)


@pytest.mark.parametrize(
    ("num_samples", "interval_s", "mib_per_sample", "is_ok"),
    [
        (721, 5, 0.0, True),
        (721, 5, 0.010, True),  # 7 MiB of 1,000 in an hour
        (721, 5, 0.020, False),  # 14 MiB
        (25, 5, 0.020, True),  # two minutes cannot show one per cent an hour
        (25, 5, 8.0, False),  # but they show 100 MiB in a minute
        (2, 5, 0.0, False),
    ],
)
def test_memory_is_judged_by_slope_or_by_rise(
    num_samples: int, interval_s: float, mib_per_sample: float, is_ok: bool
) -> None:
    assert judge_memory(fit_slope(make_course(num_samples, interval_s, mib_per_sample))).is_ok is is_ok


def make_outcome(
    ending: Ending, started_s: float = 0.0, first_byte_s: float | None = None, detail: str = ""
) -> Outcome:
    return Outcome(kind=Kind.CHAT_ONCE, ending=ending, started_s=started_s, first_byte_s=first_byte_s, detail=detail)


@pytest.mark.parametrize(
    ("endings", "faults"),
    [
        ([Ending.FINISHED, Ending.ABORTED, Ending.REFUSED, Ending.REJECTED], []),
        ([Ending.FINISHED, Ending.WRONG], ["wrong answers"]),
        ([Ending.ABORTED], ["finished answers"]),
    ],
)
def test_wrong_or_missing_answers_are_faults(endings: list[Ending], faults: list[str]) -> None:
    checks = judge_outcomes([make_outcome(ending, detail="why") for ending in endings])
    assert [check.name for check in checks if not check.is_ok] == faults


def test_early_and_late_latencies_are_those_of_the_outer_quarters() -> None:
    outcomes = [make_outcome(Ending.FINISHED, float(second), second / 1000) for second in range(101)]
    early, late = compare_quarters([*outcomes, make_outcome(Ending.ABORTED, 0.0, 9.0)])
    assert early == pytest.approx(25, abs=1)
    assert late == pytest.approx(100, abs=1)
    assert compare_quarters([]) == (None, None)


def test_table_shows_the_first_and_the_last_sample() -> None:
    rows = pick_rows(make_course(721, 5, 0.0))
    assert (len(rows), rows[0].at_s, rows[-1].at_s) == (10, 0.0, 3600.0)


def test_numbers_are_found_wherever_they_stand() -> None:
    document = {
        "status": "ok",
        "is_draining": False,
        "engines": [{"num_running": 2, "num_preemptions": 5}],
        "none": None,
    }
    gauges = dict(list_numbers(document))
    assert gauges == {"engines.0.num_running": 2, "engines.0.num_preemptions": 5}
    assert not is_idle(gauges)
    assert is_idle({**gauges, "engines.0.num_running": 0})
    assert count_preemptions(gauges) == 5
    assert count_preemptions({}) is None


def test_process_is_named_without_directories() -> None:
    assert describe_command(b"/opt/quire/bin/python\0/opt/quire/bin/quire\0serve\0") == "python quire serve"
