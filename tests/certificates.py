"""Self-signed certificates for tests, made by the openssl command; a test that needs one is skipped without it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest


class Certificate(NamedTuple):
    """Paths of a certificate for localhost and 127.0.0.1 and of its key, both PEM."""

    certfile: str
    keyfile: str


def make_certificate(directory: Path, name: str = "server") -> Certificate:
    """A fresh certificate that is valid for a day."""
    certificate = Certificate(str(directory / f"{name}.pem"), str(directory / f"{name}.key"))
    _openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"),
        *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        *("-keyout", certificate.keyfile, "-out", certificate.certfile),
    )
    return certificate


def encrypt_key(keyfile: str, target: Path) -> str:
    """The key under a password, in another file; returns its path."""
    _openssl("ec", "-in", keyfile, "-aes128", "-passout", "pass:secret", "-out", str(target))
    return str(target)


def _openssl(*arguments: str) -> None:
    command = shutil.which("openssl")
    if command is None:
        pytest.skip("the openssl command is not installed")
    subprocess.run([command, *arguments], check=True, capture_output=True, timeout=60)
