"""A child process that follows a script instead of serving: `python -m tests.service.scripted_child FD`.

The script of an engine is the model's name in the settings, that of a worker the host; what happens is noted in the
file that the variable SCRIPTED_NOTES names.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from pathlib import Path

from contracts.engine import EngineInfo
from contracts.errors import NotEnoughMemory
from contracts.frames import (
    ChildBound,
    Drain,
    EngineReady,
    ErrorReport,
    Failed,
    LaunchEngine,
    LaunchWorker,
    Progress,
    WorkerReady,
)
from service.control_channel import ControlChannel

NOTES_VARIABLE = "SCRIPTED_NOTES"
FIRST_ALIAS = "first"
"""Its engine is noted as `engine`, that of another model as `engine of ALIAS`."""
MENDED = "mended"
"""A file beside the notes: from then on the script `broken` serves."""

INFO = EngineInfo(
    model_name="scripted",
    model_path="/nowhere",
    architecture="None",
    device="cpu",
    dtype="float32",
    vocab_size=1,
    max_model_len=1,
    eos_token_ids=[],
    block_size=1,
    num_blocks=1,
    max_num_seqs=1,
    max_num_batched_tokens=1,
    num_parameters=0,
    fingerprint="fp",
)


def role_of(launch: LaunchEngine | LaunchWorker) -> str:
    """What the notes call a child."""
    alias = launch.settings.engine.served_model_name
    if isinstance(launch, LaunchWorker):
        return "worker"
    return "engine" if alias == FIRST_ALIAS else f"engine of {alias}"


async def follow(channel: ControlChannel, launch: ChildBound) -> int:
    """Do what the script says; the exit status."""
    if not isinstance(launch, LaunchEngine | LaunchWorker):
        raise TypeError("a launch is needed first")
    role = role_of(launch)
    script = launch.settings.engine.model if isinstance(launch, LaunchEngine) else launch.settings.server.host
    orders: asyncio.Queue[Drain] = asyncio.Queue()
    channel.count_requests = lambda: 3 * (script == "busy")
    channel.listen(
        asyncio.get_running_loop(),
        lambda message: orders.put_nowait(message) if isinstance(message, Drain) else None,
    )
    path = Path(os.environ.get(NOTES_VARIABLE, os.devnull))

    def note(event: str) -> None:
        with path.open("a") as file:
            file.write(f"{role} {event} {os.getpid()}\n")

    note("started")
    channel.send(Progress("thinking", 0.5))
    if script == "refuse" or (script == "broken" and not (path.parent / MENDED).exists()):
        channel.send(Failed(ErrorReport.of(NotEnoughMemory("There is no memory."))))
        return 4
    if script == "die":
        return 3
    if script in ("load", "slow"):
        await asyncio.sleep(60 if script == "load" else 0.5)
    channel.send(WorkerReady() if role == "worker" else EngineReady(INFO))
    if script == "crash":
        return 1
    if script == "hang":
        time.sleep(60)  # the loop stands
    message = await orders.get()
    note(f"ordered {type(message).__name__}")
    if script == "deaf":
        await asyncio.sleep(60)
    if script == "busy":
        await run_on(message.timeout_s, orders)
    return 0


async def run_on(timeout_s: float, orders: asyncio.Queue[Drain]) -> None:
    """What runs ends only with the time of an order."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while (await orders.get()).timeout_s > 0:
                pass


def main() -> None:
    """Be the child."""
    channel = ControlChannel(int(sys.argv[1]))
    launch = channel.receive_launch()
    status = asyncio.run(follow(channel, launch))
    os._exit(status)


if __name__ == "__main__":
    main()
