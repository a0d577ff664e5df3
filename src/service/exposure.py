"""Refuses to start a server that would be open to more than its operator means, or that would fail at its first use.

Everything is checked before anything is started; knows nothing of requests.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

from contracts.errors import SettingsError
from contracts.settings import ServerSettings, Settings
from service.conversations.location import find_location
from service.cors import OriginPolicy
from service.hosts import HostPolicy, is_loopback
from service.key_store import KeyStore

DEBUG_VARIABLE = "LITESTAR_DEBUG"


def check_exposure(settings: Settings, environ: Mapping[str, str]) -> None:
    """Raises SettingsError for keys, names, origins, certificates or a database that cannot be used, for a server
    without keys beyond this machine, and for debugging, which would show tracebacks to callers."""
    server = settings.server
    if environ.get(DEBUG_VARIABLE):
        raise SettingsError(f"{DEBUG_VARIABLE} is set, which would show the server's inside to its callers. Unset it.")
    HostPolicy(server.host, server.allowed_hosts)
    OriginPolicy(server.cors_origins)
    if not (KeyStore.open(server).is_enabled or server.insecure_no_auth or is_loopback(server.host)):
        raise SettingsError(
            f"--host is {server.host!r}, which others can reach, but there is no API key. Set LLM_API_KEYS or "
            "--api-keys-file (`quire key new` makes a key), or allow everybody with --insecure-no-auth."
        )
    check_certificate(server)
    find_location(server)


def check_certificate(server: ServerSettings) -> None:
    """Raises SettingsError unless certificate and key are both absent, or fit together."""
    if server.ssl_certfile is None and server.ssl_keyfile is None:
        return
    if server.ssl_certfile is None or server.ssl_keyfile is None:
        given, missing = "--ssl-certfile", "--ssl-keyfile"
        if server.ssl_certfile is None:
            given, missing = missing, given
        raise SettingsError(f"{given} is given without {missing}. HTTPS needs both.")
    for flag, path in (("--ssl-certfile", server.ssl_certfile), ("--ssl-keyfile", server.ssl_keyfile)):
        try:
            Path(path).open("rb").close()
        except OSError as error:
            raise SettingsError(f"{flag} is {path!r}, which cannot be read: {error.strerror}.") from error
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server.ssl_certfile, server.ssl_keyfile, _refuse_password)
    except ssl.SSLError as error:
        reason = (error.reason or "no valid PEM").lower().replace("_", " ")
        raise SettingsError(
            f"--ssl-certfile {server.ssl_certfile!r} and --ssl-keyfile {server.ssl_keyfile!r} cannot be used: "
            f"{reason}. They must be PEM files, and the key must be the certificate's."
        ) from error


def _refuse_password() -> str:
    raise SettingsError("--ssl-keyfile is encrypted; give a key without a password, readable by the server alone.")
