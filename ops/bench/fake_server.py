"""A completions server without a model, as fast as asyncio allows: the ceiling of the loader, and a peer in tests.

It answers `max_tokens` events of one word each. The model's name chooses the behaviour (see MODES). It parses just
enough HTTP for the loader; it is no example of a server.

    python -m ops.bench.fake_server --port 8100 --events-per-send 1
"""

from __future__ import annotations

import asyncio
import contextlib

import click
import msgspec
import uvloop

MODES = {
    "fake": "streams max_tokens events, usage, [DONE]",
    "no-usage": "streams max_tokens events and [DONE]",
    "one-token": "stops after one token",
    "refuse": "HTTP 503 with an OpenAI error",
    "error-midway": "streams one event, then an error event, then ends",
    "cut-midway": "streams one event, then closes the connection",
    "silent": "never answers",
}
EVENT = b'data: {"id":"cmpl-1","object":"text_completion","created":0,"model":"fake","choices":[{"text":" word","index":0,"logprobs":null,"finish_reason":null}],"system_fingerprint":null,"usage":null}\n\n'  # noqa: E501
FINISH = b'data: {"choices":[{"text":"","index":0,"finish_reason":"length"}],"usage":null}\n\n'
ERROR = b'data: {"error":{"message":"the engine failed","type":"server_error","param":null,"code":"engine_error"}}\n\n'
REFUSAL = b'{"error":{"message":"queue is full","type":"overloaded_error","param":null,"code":"queue_full"}}'
DONE = b"data: [DONE]\n\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Wanted(msgspec.Struct):
    """What the fake reads of a request."""

    model: str = "fake"
    max_tokens: int = 16
    prompt: str | list[int] = ""


class FakeServer:
    """Owns its listening socket between `start` and `close`; `requests` is what it was asked, in order."""

    def __init__(self, events_per_send: int = 1) -> None:
        self._events_per_send = events_per_send
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.requests: list[Wanted] = []

    async def start(self, port: int = 0) -> str:
        """Listen on the loopback and return the base URL."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def serve_forever(self) -> None:
        """Run until cancelled."""
        if self._server is not None:
            await self._server.serve_forever()

    async def close(self) -> None:
        """Stop listening, and end the connections."""
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await asyncio.sleep(0)  # a transport closes its socket in the next turn of the loop

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
        with contextlib.suppress(asyncio.CancelledError):  # its end is the end of the task
            await self._converse(reader, writer)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                await self._answer(head, await reader.readexactly(_read_content_length(head)), writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"GET "):
            _write_whole(writer, b"200 OK", b'{"object":"list","data":[{"id":"fake","object":"model"}]}')
            return
        wanted = msgspec.json.decode(body, type=Wanted)
        self.requests.append(wanted)
        match wanted.model:
            case "refuse":
                _write_whole(writer, b"503 Service Unavailable\r\nRetry-After: 3", REFUSAL)
            case "silent":
                await asyncio.Event().wait()
            case "cut-midway":
                writer.write(STREAM_HEAD + _chunk(EVENT))
                writer.close()
            case "error-midway":
                writer.write(STREAM_HEAD + _chunk(EVENT) + _chunk(ERROR) + _chunk(b""))
            case _:
                await self._stream(wanted, writer)

    async def _stream(self, wanted: Wanted, writer: asyncio.StreamWriter) -> None:
        num_tokens = 1 if wanted.model == "one-token" else wanted.max_tokens
        chunk = _chunk(EVENT)
        writer.write(STREAM_HEAD)
        for first in range(0, num_tokens, self._events_per_send):
            writer.write(chunk * min(self._events_per_send, num_tokens - first))
            await asyncio.sleep(0)
        usage = {"prompt_tokens": len(wanted.prompt), "completion_tokens": num_tokens}
        usage_event = b"data: " + msgspec.json.encode({"choices": [], "usage": usage}) + b"\n\n"
        tail = [FINISH, *([] if wanted.model == "no-usage" else [usage_event]), DONE, b""]
        writer.write(b"".join(_chunk(piece) for piece in tail))


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _write_whole(writer: asyncio.StreamWriter, status: bytes, body: bytes) -> None:
    writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))


def _read_content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


async def serve(port: int, events_per_send: int) -> None:
    """Listen until the process is ended."""
    server = FakeServer(events_per_send)
    print(await server.start(port), flush=True)
    await server.serve_forever()


@click.command()
@click.option("--port", type=int, default=8100, show_default=True)
@click.option("--events-per-send", type=click.IntRange(min=1), default=1, show_default=True)
def main(port: int, events_per_send: int) -> None:
    """Serve a fake model on the loopback."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(port, events_per_send))


if __name__ == "__main__":
    main()
