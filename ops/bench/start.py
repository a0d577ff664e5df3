"""How long from the command to the end of the first answer of one token: `python -m ops.bench.start`.

The first start after an installation also reads the libraries from the disk, so it is told apart from the later ones.
"""

from __future__ import annotations

import statistics

import click

from ops.bench.server_process import ServerFailed, ServerProcess, build_quire_command
from service.bench.loader import Loader
from service.bench.workload import Target


@click.command()
@click.option("--model", default="quire-pico", show_default=True, help="Model of the server that is started.")
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto", show_default=True)
@click.option("--runs", type=click.IntRange(min=2), default=5, show_default=True)
@click.option("--serve-options", default="", help="More options of `quire serve`, as one text.")
@click.option("--timeout", type=float, default=120.0, show_default=True, help="Seconds of one start.")
def main(model: str, dtype: str, runs: int, serve_options: str, timeout: float) -> None:
    """Start the server again and again, and ask each for one token."""
    command = build_quire_command(model, dtype, serve_options)
    first_s, *later_s = (time_start(command, timeout) for _ in range(runs))
    click.echo(f"first {first_s:.2f} s; later {' / '.join(f'{one_s:.2f}' for one_s in later_s)} s")
    click.echo(f"median of the later ones: {statistics.median(later_s):.2f} s")


def time_start(command: str, timeout_s: float) -> float:
    """Seconds of one start, polled every 50 ms. Raises click.ClickException where there is no answer."""
    try:
        with (
            Loader(1, timeout_s) as loader,
            ServerProcess("quire", command, Target(name="", base_url="", model="")) as one,
        ):
            one.wait_until_answering(loader, timeout_s)
            if one.first_answer_s is None:
                raise ServerFailed("nothing was answered")
            return one.first_answer_s
    except ServerFailed as failure:
        raise click.ClickException(str(failure)) from None


if __name__ == "__main__":
    main()
