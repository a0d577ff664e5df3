"""What the shape test checks: rules over the syntax trees of our own modules, each yielding `place: what is wrong`."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SOURCE_FOLDERS = ("contracts", "src", "ops")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 7

PURE_BATCHING = (
    "admission",
    "block_pool",
    "block_table",
    "broken_blocks",
    "event_log",
    "fair_share",
    "free_list",
    "live_look",
    "placement",
    "prompt_lookup",
    "record_ring",
    "request_book",
    "scheduler",
    "scheduler_config",
    "sequence",
    "step",
    "steps_in_flight",
    "tenant_limits",
    "token_budget",
    "waiting_queue",
)
"""Modules of batching that are synchronous pure Python."""
HEAVY = frozenset({"torch", "transformers", "safetensors", "numba", "triton", "numpy"})
HTTP_SIDE = frozenset({"litestar", "granian", "click", "service", "httpx", "openai"})
FORBIDDEN_MODULES = frozenset({"pickle", "marshal", "dill", "shelve", "cloudpickle", "joblib"})
FORBIDDEN_NAMES = frozenset({"utils.py", "base.py", "helpers.py", "common_utils.py"})
OPEN_HANDLERS = frozenset(
    {
        ("src/batching/async_engine.py", "_run"),
        ("src/batching/isolation.py", "_attempt"),
        ("src/batching/engine_server.py", "_submit"),
        ("src/batching/step_pipeline.py", "_launch"),
        ("src/service/compat/gemma_stream.py", "events"),
        ("src/service/engine_process.py", "_serve"),
        ("src/service/engine_provider.py", "_load"),
        ("src/service/routes/generation.py", "reply_events"),
    }
)
"""(file, function) that may swallow every exception: step loops and top handlers. Others must raise it again."""
WALL_CLOCKS = frozenset({"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.datetime.now"})
DATES = frozenset(
    {
        ("src/service/bench/command.py", "build_report"),
        ("src/service/chat_template.py", "_strftime_now"),
        ("src/service/engine_provider.py", "make_serving"),
        ("src/service/clocks.py", "unix_ms"),
        ("src/service/clocks.py", "unix_offset_ns"),
        ("src/service/routes/generation.py", "new_head"),
    }
)
"""(file, function) that tell people the time: `created`, the date in a prompt, the date of a report."""
_UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")


class Module(NamedTuple):
    """One source file: its path from the root, its text and its tree."""

    path: PurePosixPath
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        """contracts, batching, service or ops."""
        return self.path.parts[1] if self.path.parts[0] == "src" else self.path.parts[0]


def read_modules() -> list[Module]:
    """Every Python file of contracts, src and ops."""
    paths = sorted(path for folder in SOURCE_FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return [parse(PurePosixPath(path.relative_to(ROOT).as_posix()), path.read_text("utf-8")) for path in paths]


def parse(path: PurePosixPath, text: str) -> Module:
    return Module(path, text, ast.parse(text))


def wrong_imports(module: Module) -> Iterator[str]:
    """contracts <- batching <- service; the pure core without torch; service only lazily over batching."""
    for node, names in _imports(module.tree):
        for name in names:
            top = name.partition(".")[0]
            if reason := _import_problem(module, top, is_lazy=node.col_offset > 0):
                yield f"{module.path}:{node.lineno}: imports {name}, but {reason}"


def _import_problem(module: Module, top: str, *, is_lazy: bool) -> str | None:
    if top in FORBIDDEN_MODULES:
        return "it can run code from data"
    if module.package == "contracts" and top not in {"contracts", "msgspec"} | set(sys.stdlib_module_names):
        return "contracts knows the standard library and msgspec alone"
    if module.package == "batching" and top in HTTP_SIDE:
        return "batching knows nothing of HTTP or the command line"
    is_pure = module.package == "batching" and module.path.stem in PURE_BATCHING and len(module.path.parts) == 3
    if is_pure and top in HEAVY:
        return "the scheduling core is pure Python"
    if module.package == "service" and top in {"torch", "transformers"}:
        return "service never imports it"
    if module.package == "service" and top == "batching" and not is_lazy:
        return "service imports batching inside functions only"
    return "ops is no part of the package" if module.package != "ops" and top == "ops" else None


def _imports(tree: ast.Module) -> Iterator[tuple[ast.stmt, list[str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield node, [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            yield node, ["." * node.level + (node.module or "")]


def unsafe_calls(module: Module) -> Iterator[str]:
    """Data that is run as code, weights that are unpickled, checkpoints that bring their own code (S35)."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in {
            "eval",
            "exec",
            "compile",
            "__import__",
            "torch.load",
            "os.system",
            "yaml.load",
            "numpy.load",
            "np.load",
        }:
            yield f"{module.path}:{node.lineno}: calls {called}"
        for keyword in node.keywords:
            is_true = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
            if keyword.arg in {"trust_remote_code", "shell"} and is_true:
                yield f"{module.path}:{node.lineno}: passes {keyword.arg}=True"


def wall_clocks(module: Module) -> Iterator[str]:
    """Reads of a clock that may jump, outside the places that show a date to people (R30)."""
    for function in [module.tree, *_functions(module.tree)]:
        for node in ast.walk(function):
            if not isinstance(node, ast.Attribute) or ast.unparse(node) not in WALL_CLOCKS:
                continue
            place = str(module.path), getattr(function, "name", "")
            if _owner(module.tree, node) is function and place not in DATES and module.package != "ops":
                yield f"{module.path}:{node.lineno}: {place[1]} reads {ast.unparse(node)}; use time.monotonic"


def _owner(tree: ast.Module, node: ast.AST) -> ast.AST:
    """The innermost function around a node, else the module."""
    around = [function for function in _functions(tree) if any(inner is node for inner in ast.walk(function))]
    return max(around, key=lambda function: function.lineno) if around else tree


def open_handlers(module: Module) -> Iterator[str]:
    """Handlers that swallow every exception outside the places that are meant for it."""
    for line, place in find_open_handlers(module):
        if place not in OPEN_HANDLERS:
            yield f"{module.path}:{line}: {place[1]} catches every exception"


def find_open_handlers(module: Module) -> Iterator[tuple[int, tuple[str, str]]]:
    """(line, (file, function)) of each handler that takes every exception and does not end by raising it again."""
    for function in _functions(module.tree):
        for node in ast.walk(function):
            if isinstance(node, ast.ExceptHandler) and _is_open(node):
                yield node.lineno, (str(module.path), function.name)


def _is_open(handler: ast.ExceptHandler) -> bool:
    caught = ast.unparse(handler.type) if handler.type is not None else "BaseException"
    last = handler.body[-1]
    is_raised_again = isinstance(last, ast.Raise) and last.exc is None
    return bool(re.search(r"\b(Base)?Exception\b", caught)) and not is_raised_again


def too_large(module: Module) -> Iterator[str]:
    """Files, functions and parameter lists over their limits; kernels may be long."""
    num_lines = module.text.count("\n")
    is_kernel = "kernels" in module.path.parts
    if num_lines > MAX_FILE_LINES and not is_kernel and not _is_corpus(module):
        yield f"{module.path}: {num_lines} lines, at most {MAX_FILE_LINES}"
    for function in _functions(module.tree):
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        if length > MAX_FUNCTION_LINES and not is_kernel:
            yield f"{module.path}:{function.lineno}: {function.name} has {length} lines, at most {MAX_FUNCTION_LINES}"
        num_parameters = _num_parameters(function)
        if num_parameters > MAX_PARAMETERS and not is_kernel:
            yield f"{module.path}:{function.lineno}: {function.name} has {num_parameters} parameters"


def _is_corpus(module: Module) -> bool:
    """Tables of words from which the embedded model's training text is made."""
    return "corpus" in module.path.parts


def _num_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Parameters apart from self and cls."""
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([name for name in names if name not in {"self", "cls"}])


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def bad_names_and_words(module: Module) -> Iterator[str]:
    """Files named after nothing, modules that do not say what they own, and work left over."""
    if module.path.name in FORBIDDEN_NAMES:
        yield f"{module.path}: name the file after what it holds"
    if not ast.get_docstring(module.tree):
        yield f"{module.path}: no module docstring"
    for number, line in enumerate(module.text.splitlines(), start=1):
        if _UNFINISHED.search(line):
            yield f"{module.path}:{number}: unfinished: {line.strip()}"
