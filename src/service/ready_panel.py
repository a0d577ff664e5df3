"""What `quire serve` prints when it begins to serve: addresses, the model's facts, and lines to paste into a shell."""

from __future__ import annotations

import shlex
from typing import Literal

import msgspec
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from contracts.engine import EngineInfo
from contracts.settings import Settings
from service.listen_address import ListenAddress

_JSON_HEADER = "-H 'content-type: application/json'"
_KEY_HEADER = '-H "authorization: Bearer $QUIRE_API_KEY"'


def print_ready_panel(settings: Settings, info: EngineInfo, startup_s: float, console: Console | None = None) -> None:
    """Print the panel; `settings.server.port` is the port really bound. The curl lines stand outside the frame."""
    out = console if console is not None else Console(highlight=False)
    server = settings.server
    scheme: Literal["http", "https"] = "http" if server.ssl_certfile is None else "https"
    url = ListenAddress(ip=server.host, port=server.port, scheme=scheme).url
    has_keys = server.api_keys is not None or server.api_keys_file is not None
    table = Table.grid(padding=(0, 2))
    for name, value in describe(info, url, startup_s):
        table.add_row(Text(name, style="bold"), Text(value, overflow="fold"))
    out.print(Panel(Group(table), title="Quire is ready", title_align="left", border_style="green", expand=False))
    for command in curl_lines(url, info.model_name, has_keys=has_keys):
        out.print(Text(command), soft_wrap=True)


def describe(info: EngineInfo, url: str, startup_s: float) -> list[tuple[str, str]]:
    """The rows of the panel."""
    num_full = info.num_cache_tokens // info.max_model_len
    fit = f"{num_full} full-length request{'' if num_full == 1 else 's'}"
    return [
        ("API", f"{url}/v1"),
        ("Page", f"{url}/"),
        ("Docs", f"{url}/docs"),
        ("Model", f"{info.model_name} ({info.architecture}, {_count(info.num_parameters)} parameters)"),
        ("Device", f"{info.device}, {info.dtype}"),
        ("KV cache", f"{info.num_blocks:,} blocks x {info.block_size} tokens: holds {fit} of {info.max_model_len:,}"),
        ("Batch", f"up to {info.max_num_seqs} sequences, {info.max_num_batched_tokens:,} tokens a step"),
        ("Started in", f"{startup_s:.1f} s"),
    ]


def curl_lines(url: str, model_name: str, *, has_keys: bool = False) -> list[str]:
    """Three commands that work as they stand: the model list, a chat answer, a streamed chat answer.

    `has_keys` adds the header of a key, which the shell takes from its variable QUIRE_API_KEY.
    """
    chat: dict[str, object] = {"model": model_name, "messages": [{"role": "user", "content": "Hello, what are you?"}]}
    curl = f"curl {_KEY_HEADER}" if has_keys else "curl"
    post = f"{shlex.quote(url + '/v1/chat/completions')} {_JSON_HEADER} -d"
    return [
        f"{curl} {shlex.quote(url + '/v1/models')}",
        f"{curl} {post} {_quoted_json(chat)}",
        f"{curl} -N {post} {_quoted_json({**chat, 'stream': True})}",
    ]


def _quoted_json(body: dict[str, object]) -> str:
    return shlex.quote(msgspec.json.encode(body).decode())


def _count(number: int) -> str:
    """A count as people say it: 5,836,288 is `5.8 M`."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)
