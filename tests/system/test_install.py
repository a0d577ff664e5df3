"""The wheel holds what a server needs, without anything beside it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from contracts.version import VERSION
from tests.shape_rules import ROOT


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names in the wheel, built from the checkout with the build back end that is installed."""
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--wheel-dir", str(target)], check=True, timeout=300)
    with zipfile.ZipFile(target / f"quire-{VERSION}-py3-none-any.whl") as wheel:
        return set(wheel.namelist())


def test_lock_is_complete_and_hashed() -> None:
    text = (ROOT / "requirements.lock").read_text("utf-8")
    pins = [line for line in text.splitlines() if "==" in line]
    assert [pin for pin in pins if not pin.endswith("\\")] == []
    assert [name for name in ("torch", "triton", "nvidia-cublas") if f"\n{name}==" in text] == []
    assert "://" not in text


def test_test_lock_holds_the_same_versions() -> None:
    """What is tested is what is served with."""
    pins, test_pins = (
        {line for line in (ROOT / name).read_text("utf-8").splitlines() if "==" in line}
        for name in ("requirements.lock", "requirements-test.lock")
    )
    assert pins <= test_pins


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["contracts", "src/batching", "src/service"])
def test_wheel_holds_every_tracked_file_of_the_packages(wheel_names: set[str], folder: str) -> None:
    listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = {name.removeprefix("src/") for name in listed.stdout.splitlines()}
    assert wanted - wheel_names == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_wheel_holds_the_embedded_model(wheel_names: set[str], name: str) -> None:
    assert f"batching/pico/weights/{name}" in wheel_names


@pytest.mark.slow
def test_wheel_holds_the_page_the_licence_and_the_command(wheel_names: set[str]) -> None:
    assert [name for name in wheel_names if name.startswith("service/ui/")]
    assert f"quire-{VERSION}.dist-info/licenses/LICENSE" in wheel_names
    assert f"quire-{VERSION}.dist-info/entry_points.txt" in wheel_names


@pytest.mark.slow
def test_wheel_holds_neither_tests_nor_ops(wheel_names: set[str]) -> None:
    assert {Path(name).parts[0] for name in wheel_names} == {
        "batching",
        "contracts",
        "service",
        f"quire-{VERSION}.dist-info",
    }
