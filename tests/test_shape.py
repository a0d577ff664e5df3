"""The architecture as a test: import direction, sizes, names, and what no module may do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

import pytest

from tests import shape_rules
from tests.shape_rules import Module

Rule = Callable[[Module], Iterator[str]]

RULES: list[Rule] = [
    shape_rules.wrong_imports,
    shape_rules.unsafe_calls,
    shape_rules.wall_clocks,
    shape_rules.open_handlers,
    shape_rules.too_large,
    shape_rules.bad_names_and_words,
]


@pytest.fixture(scope="module")
def modules() -> list[Module]:
    return shape_rules.read_modules()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_module_keeps_the_rule(rule: Rule, modules: list[Module]) -> None:
    assert [problem for module in modules for problem in rule(module)] == []


def test_all_our_packages_are_looked_at(modules: list[Module]) -> None:
    assert {module.package for module in modules} == {"contracts", "batching", "service", "ops"}


def test_every_place_that_may_catch_everything_still_does(modules: list[Module]) -> None:
    found = {place for module in modules for _, place in shape_rules.find_open_handlers(module)}
    assert found >= shape_rules.OPEN_HANDLERS


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (shape_rules.wrong_imports, "contracts/x.py", "import torch"),
        (shape_rules.wrong_imports, "src/batching/x.py", "from service.app import create_app"),
        (shape_rules.wrong_imports, "src/batching/scheduler.py", "def f():\n    import torch"),
        (shape_rules.wrong_imports, "src/service/x.py", "def f():\n    from transformers import AutoConfig"),
        (shape_rules.wrong_imports, "src/service/x.py", "from batching.step import SchedulerOutput"),
        (shape_rules.wrong_imports, "ops/x.py", "import pickle"),
        (shape_rules.unsafe_calls, "ops/x.py", "torch.load('a')"),
        (shape_rules.unsafe_calls, "src/service/x.py", "eval('1')"),
        (shape_rules.unsafe_calls, "src/batching/x.py", "f(trust_remote_code=True)"),
        (shape_rules.wrong_imports, "src/batching/x.py", "def f():\n    from cloudpickle import loads"),
        (shape_rules.unsafe_calls, "src/batching/x.py", "yaml.load(text)"),
        (shape_rules.wall_clocks, "src/batching/x.py", "def f():\n  return time.time() + 5"),
        (shape_rules.wall_clocks, "src/service/x.py", "START = datetime.now()"),
        (shape_rules.wall_clocks, "src/service/x.py", "clock = time.time"),
        (shape_rules.open_handlers, "src/service/x.py", "def f():\n  try: g()\n  except (OSError, Exception): pass"),
        (shape_rules.open_handlers, "src/service/x.py", "def f():\n  try: g()\n  except: pass"),
        (shape_rules.too_large, "src/service/x.py", "\n" * 401),
        (shape_rules.too_large, "src/service/x.py", "def f():\n" + "  g()\n" * 61),
        (shape_rules.too_large, "src/service/x.py", "def f(a, b, c, d, *, e, f, g, h): ..."),
        (shape_rules.bad_names_and_words, "src/service/utils.py", '"""Doc."""'),
        (shape_rules.bad_names_and_words, "src/service/x.py", "x = 1"),
        (shape_rules.bad_names_and_words, "src/service/x.py", '"""Doc."""\n# TO' + "DO: later"),
    ],
)
def test_rule_sees_the_breach(rule: Rule, path: str, text: str) -> None:
    assert len(list(rule(shape_rules.parse(PurePosixPath(path), text)))) == 1


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (shape_rules.wrong_imports, "src/service/x.py", "def f():\n    from batching.offline import OfflineEngine"),
        (shape_rules.wrong_imports, "src/batching/sampler.py", "import torch"),
        (shape_rules.wall_clocks, "src/batching/x.py", "def f():\n  return time.monotonic()"),
        (shape_rules.too_large, "src/batching/kernels/x.py", "\n" * 500),
        (shape_rules.too_large, "src/service/x.py", "def f(self, a, b, c, d, e, f, g): ..."),
        (shape_rules.open_handlers, "src/service/x.py", "def f():\n  try: g()\n  except OSError: pass"),
        (
            shape_rules.open_handlers,
            "src/service/x.py",
            "def f():\n  try: g()\n  except BaseException:\n    h(); raise",
        ),
    ],
)
def test_rule_lets_the_right_thing_pass(rule: Rule, path: str, text: str) -> None:
    assert list(rule(shape_rules.parse(PurePosixPath(path), text))) == []
