"""The page in a real browser against a real server with the built-in model; skipped where there is no browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.shape_rules import ROOT
from tests.system.quire_process import READY, QuireProcess, running_quire

BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
WEIGHTS = ROOT / "src" / "batching" / "pico" / "weights"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs what `browser` needs."""
    for item in items:
        if Path(item.path).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.page)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium of the system, shared by all tests; each has a context of its own."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install 'quire[page-test]'"
    )
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no browser: apt-get install chromium-headless-shell")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def quire(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuireProcess]:
    """A server with the built-in model and, under the name of `two`, the same again; it keeps conversations."""
    directory = tmp_path_factory.mktemp("page")
    second = shutil.copytree(WEIGHTS, directory / "two")
    flags = ("--port", "0", "--models", f"two={second}", "--conversations-db", str(directory / "kept.db"))
    with running_quire(directory, "serve", *flags) as quire:
        quire.wait_for(READY)
        yield quire


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    """A browser profile that knows nothing yet."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def page(context: Any, quire: QuireProcess) -> Any:
    """The page, ready to be written in; `page.requested` are the addresses it has asked for, `page.trouble` what went
    wrong in it."""
    page = context.new_page()
    page.requested = []
    page.trouble = []
    page.on("request", lambda request: page.requested.append(request.url))
    page.on("pageerror", lambda error: page.trouble.append(str(error)))
    page.on("console", lambda line: "Refused to" in line.text and page.trouble.append(line.text))
    page.on("dialog", lambda dialog: (page.trouble.append(dialog.message), dialog.dismiss()))
    page.goto(f"{quire.address}/")
    page.wait_for_selector(".dot.ok")
    return page
