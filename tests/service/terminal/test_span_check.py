"""A test span arrives, or the doctor says why it did not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from contracts.settings import ServerSettings
from service.terminal.span_check import SPAN_NAME, check_traces
from tests.service.terminal.scripted_api import Answer, scripted_api
from tests.system.otlp_sink import running_sink


@pytest.fixture(autouse=True)
def no_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)


def test_span_is_read_back_without_a_collector() -> None:
    finding = check_traces(ServerSettings())
    assert (finding.state, "read back" in finding.summary) == ("ok", True)
    assert len(str(finding.evidence["trace_id"])) == 32


def test_span_reaches_the_collector() -> None:
    with running_sink() as sink:
        finding = check_traces(ServerSettings(otlp_endpoint=sink.address))
        assert (finding.state, sink.address in finding.summary) == ("ok", True)
        assert [span.trace_id for span in sink.named(SPAN_NAME)] == [finding.evidence["trace_id"]]


def test_collector_that_refuses_fails_with_its_answer() -> None:
    with refusing_collector() as url:
        finding = check_traces(ServerSettings(otlp_endpoint=url))
    assert (finding.state, "403" in finding.summary) == ("failed", True)
    assert "--otlp-endpoint" in (finding.remedy or "")


def test_collector_that_is_not_there_fails() -> None:
    finding = check_traces(ServerSettings(otlp_endpoint="http://127.0.0.1:9"))
    assert (finding.state, "Connection refused" in finding.summary) == ("failed", True)


def test_jaeger_that_shows_the_span_is_told() -> None:
    with running_sink() as sink, scripted_api() as jaeger:
        settings = ServerSettings(otlp_endpoint=sink.address, jaeger_url=jaeger.url)
        jaeger.answers = AnyTrace()
        finding = check_traces(settings)
    assert (finding.state, finding.summary.endswith(f"Jaeger at {jaeger.url} shows it.")) == ("ok", True)


def test_jaeger_that_does_not_show_it_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.terminal.span_check.JAEGER_WAIT_S", 0.1)
    with running_sink() as sink, scripted_api() as jaeger:
        finding = check_traces(ServerSettings(otlp_endpoint=sink.address, jaeger_url=jaeger.url))
    assert (finding.state, "--jaeger-url" in (finding.remedy or "")) == ("warning", True)


@contextmanager
def refusing_collector() -> Iterator[str]:
    """Answers 403 to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(403)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Keep standard error clean."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class AnyTrace(dict[str, Answer]):
    """A Jaeger that has every trace."""

    def get(self, key: str, default: Answer | None = None) -> Answer:  # type: ignore[override]
        return Answer()
