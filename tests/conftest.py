"""What tests share wherever they stand in the tree: a PostgreSQL for conversations, and signatures parsed once."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.handler_signatures import parsed_once
from tests.postgres_server import PostgresServer, running_postgres, why_none

POSTGRES_VARIABLE = "QUIRE_TEST_POSTGRES_URL"


@pytest.fixture(scope="session", autouse=True)
def signatures() -> Iterator[None]:
    """Applications are made faster, and are no others."""
    with parsed_once():
        yield


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Of the server that QUIRE_TEST_POSTGRES_URL names, else of one started for this run of the tests."""
    given = os.environ.get(POSTGRES_VARIABLE)
    if given is not None:
        yield given
        return
    if reason := why_none():
        pytest.skip(f"{reason}, and {POSTGRES_VARIABLE} names no server")
    with running_postgres() as server:
        yield server.url


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """A server of the test's own, which it may stop."""
    if reason := why_none():
        pytest.skip(reason)
    with running_postgres() as server:
        yield server
