"""`quire why`: asks a running server why a request took as long as it did."""

from __future__ import annotations

from urllib.parse import quote

import click
import msgspec

from contracts.errors import SettingsError
from contracts.explanation import Explanation, ExplanationList
from service.terminal.api_client import ApiClient
from service.terminal.server_options import server_options
from service.timeline import draw_timeline


@click.command("why")
@click.argument("request_id", required=False)
@click.option("--slowest", type=click.IntRange(1, 100), metavar="N", help="The N slowest that are remembered.")
@click.option("--newest", type=click.IntRange(1, 100), metavar="N", help="The N newest.")
@server_options
@click.option("--json", "is_json", is_flag=True, help="Print what the server answers.")
def why_command(
    request_id: str | None, slowest: int | None, newest: int | None, base_url: str, api_key: str | None, is_json: bool
) -> None:
    """Say where the time of a request went, and why.

    REQUEST_ID is the id of the reply (chatcmpl-..., cmpl-...), its x-request-id, or its trace id.
    """
    path = choose_path(request_id, slowest, newest)
    wanted: type[Explanation | ExplanationList] = Explanation if request_id else ExplanationList
    with ApiClient(base_url, api_key) as client:
        reply = client.get_json(path, wanted)
    if is_json:
        click.echo(msgspec.json.format(msgspec.json.encode(reply), indent=2).decode())
        return
    told = [reply] if isinstance(reply, Explanation) else reply.data
    if not told:
        click.echo("The server remembers no request.")
    click.echo("\n".join(draw_timeline(explanation) for explanation in told), nl=False)


def choose_path(request_id: str | None, slowest: int | None, newest: int | None) -> str:
    """What to GET; raises SettingsError unless exactly one thing is asked for."""
    if sum(wanted is not None for wanted in (request_id, slowest, newest)) != 1:
        raise SettingsError("Give a REQUEST_ID, --slowest N or --newest N.")
    if request_id is not None:
        return f"/v1/requests/{quote(request_id, safe='')}"
    order = "slowest" if slowest is not None else "newest"
    return f"/v1/requests?limit={slowest or newest}&order={order}"
