"""Whether the server of this container is ready: exit code 0 or 1, one line on why not. Standard library only.

Reads LLM_PORT and LLM_SSL_CERTFILE as `quire serve` does. The certificate is not verified: the connection never
leaves the container, and the name in it is that of the public address.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys
from collections.abc import Mapping

PATH = "/health/ready"
TIMEOUT_S = 4.0


def open_connection(environ: Mapping[str, str]) -> http.client.HTTPConnection:
    """A connection to the server, not yet made. Raises ValueError for a port that is no number."""
    port = int(environ.get("LLM_PORT") or 8000)
    if not environ.get("LLM_SSL_CERTFILE"):
        return http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT_S, context=context)


def probe(environ: Mapping[str, str]) -> str | None:
    """None when the server is ready, else what it said."""
    connection = open_connection(environ)
    try:
        connection.request("GET", PATH)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{PATH} on port {connection.port}: {error or type(error).__name__}"
    finally:
        connection.close()
    return None if status == http.client.OK else f"{PATH} on port {connection.port}: HTTP {status}"


def main() -> int:
    """Print the problem, if there is one, where `docker inspect` shows it."""
    problem = probe(os.environ)
    if problem is not None:
        print(problem, file=sys.stderr)
    return 0 if problem is None else 1


if __name__ == "__main__":
    sys.exit(main())
