"""A child process that follows a script instead of serving: `python -m tests.service.scripted_child FD`.

The script of the engine is the model's name in the settings, that of a worker the host; what happens is noted in the
file DIRECTORY/notes, where DIRECTORY is the served name of the model.
"""

from __future__ import annotations

import asyncio
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
from contracts.settings import Settings
from service.control_channel import ControlChannel

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


def notes_path(settings: Settings) -> Path:
    """Where every child of these settings notes what happens to it."""
    return Path(str(settings.engine.served_model_name)) / "notes"


async def follow(channel: ControlChannel, launch: ChildBound) -> int:
    """Do what the script says; the exit status."""
    if not isinstance(launch, LaunchEngine | LaunchWorker):
        raise TypeError("a launch is needed first")
    role, script = (
        ("engine", launch.settings.engine.model)
        if isinstance(launch, LaunchEngine)
        else ("worker", launch.settings.server.host)
    )
    order: asyncio.Future[ChildBound] = asyncio.get_running_loop().create_future()
    channel.listen(asyncio.get_running_loop(), lambda message: take(message) if isinstance(message, Drain) else None)
    take = order.set_result
    path = notes_path(launch.settings)

    def note(event: str) -> None:
        with path.open("a") as file:
            file.write(f"{role} {event} {os.getpid()}\n")

    note("started")
    channel.send(Progress("thinking", 0.5))
    if script == "refuse":
        channel.send(Failed(ErrorReport.of(NotEnoughMemory("There is no memory."))))
        return 4
    if script == "die":
        return 3
    if script == "load":
        await asyncio.sleep(60)
    channel.send(EngineReady(INFO) if role == "engine" else WorkerReady())
    if script == "crash":
        return 1
    if script == "hang":
        time.sleep(60)  # the loop stands
    message = await order
    note(f"ordered {type(message).__name__}")
    if script == "deaf":
        await asyncio.sleep(60)
    return 0


def main() -> None:
    """Be the child."""
    channel = ControlChannel(int(sys.argv[1]))
    launch = channel.receive_launch()
    status = asyncio.run(follow(channel, launch))
    os._exit(status)


if __name__ == "__main__":
    main()
