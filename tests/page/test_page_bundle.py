"""What ships is what the sources build, byte for byte."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.shape_rules import ROOT

SOURCES = ROOT / "ops" / "page"
BUILT = ROOT / "src" / "service" / "ui"


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node: the page cannot be built here, only served")
    if not (SOURCES / "node_modules" / "esbuild").is_dir():
        pytest.skip("ops/page/node_modules is not there: make page fetches it")
    target = tmp_path_factory.mktemp("ui")
    subprocess.run([node, "build.mjs", str(target)], cwd=SOURCES, check=True, timeout=60)
    return target


@pytest.mark.parametrize("name", ["page.js", "page.css", "NOTICE.txt"])
def test_committed_file_is_what_the_sources_build(rebuilt: Path, name: str) -> None:
    assert (rebuilt / name).read_bytes() == (BUILT / name).read_bytes(), "run: make page"
