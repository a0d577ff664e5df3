"""The monitor fits every window from 30 columns on and says the same with and without colours."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from service.terminal.monitor import is_quitting
from service.terminal.monitor_meter import Meter, quantiles
from service.terminal.monitor_screen import Scene, draw_monitor
from tests.service.terminal.live_looks import counters, explanation, look, row, waiting


@pytest.fixture
def meter() -> Meter:
    meter = Meter()
    meter.add(look(1.0, [row(1)]))
    moved = counters(num_generated_tokens=500, num_steps=10, step_time_s=0.02, num_prompt_tokens=10)
    meter.add(look(2.0, [row(2), row(3)], counters=moved, waiting=[waiting(4)], num_waiting=9))
    return meter


def drawn(scene: Scene, width: int, height: int = 24, *, is_unicode: bool = True, color: str | None = None) -> str:
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        height=height,
        force_terminal=color is not None,
        color_system="truecolor" if color else None,
    )
    console.print(draw_monitor(scene, width, height, is_unicode=is_unicode))
    return out.getvalue()


@pytest.mark.parametrize("width", [30, 40, 60, 76, 80, 120, 200])
def test_every_line_fits(meter: Meter, width: int) -> None:
    scene = Scene(url="http://127.0.0.1:8000", meter=meter, quantiles=quantiles([explanation(1)]), hint="q quits")
    lines = drawn(scene, width).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    assert len(lines) <= 24


@pytest.mark.parametrize("width", [30, 80, 120])
def test_the_main_numbers_are_at_every_width(meter: Meter, width: int) -> None:
    text = drawn(Scene(url="http://x", meter=meter), width)
    words = ("pico", "tokens/s", "500", "2 of 8", "waiting", "2.0 ms", "40 %", "cmpl-0")
    assert [word for word in words if word not in text] == []


def test_waiting_and_hidden_ones_are_counted(meter: Meter) -> None:
    text = drawn(Scene(url="http://x", meter=meter), 100)
    assert "waits" in text
    assert "and 8 more" in text


def test_who_came_and_who_left(meter: Meter) -> None:
    lines = drawn(Scene(url="http://x", meter=meter), 100).splitlines()
    assert [line for line in lines if line.startswith("- cmpl-") and "2 tokens, 1.5 s" in line] != []
    assert [line for line in lines if line.startswith("+ cmpl-") and "10 prompt tokens" in line] != []


def test_lost_server_is_said_and_the_past_called_past(meter: Meter) -> None:
    text = drawn(Scene(url="http://x", meter=meter, problem="Nothing answers at http://x."), 80)
    assert text.index("Nothing answers at http://x.") < text.index("As it was last seen:")


def test_first_look_is_waited_for() -> None:
    assert "Waiting for a first look" in drawn(Scene(url="http://x", meter=Meter()), 40)


def test_bars_are_of_letters_where_the_terminal_knows_no_others(meter: Meter) -> None:
    text = drawn(Scene(url="http://x", meter=meter), 80, is_unicode=False)
    assert text.isascii()
    assert "####" in text


def test_short_window_keeps_the_head(meter: Meter) -> None:
    assert drawn(Scene(url="http://x", meter=meter), 80, 10).splitlines()[0].startswith("pico")


@pytest.mark.parametrize(
    ("keys", "quits"),
    [(b"q", True), (b"xQ", True), (b"\x1b", True), (b"", True), (b"\x1b[A", False), (b"j", False)],
)
def test_keys_that_quit(keys: bytes, quits: bool) -> None:
    assert is_quitting(keys) is quits
