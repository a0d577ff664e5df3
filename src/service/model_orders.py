"""What a worker has asked the supervisor to do with a model, until that is done. Knows no models, only their names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from contracts.errors import ModelLoadFailed, ShuttingDown
from contracts.frames import ErrorReport, ModelOrder, SupervisorBound
from service.engine_provider import OrderVerb


class ModelOrders:
    """Life cycle: have_done, settle, any number of times -> close. Owner: a worker's pool of models."""

    def __init__(self, send: Callable[[SupervisorBound], None]) -> None:
        self._send = send
        self._open: dict[int, asyncio.Future[None]] = {}
        self._num_orders = 0
        self._is_closed = False

    async def have_done(self, verb: OrderVerb, alias: str, timeout_s: float | None = None) -> None:
        """Return when it is done. Raises ModelLoadFailed with the reason, or ShuttingDown."""
        if self._is_closed:
            raise _refusal()
        self._num_orders += 1
        number = self._num_orders
        done = self._open[number] = asyncio.get_running_loop().create_future()
        self._send(ModelOrder(number, verb, alias, timeout_s))
        try:
            await done
        finally:
            del self._open[number]

    def settle(self, number: int, error: ErrorReport | None) -> None:
        """It is done, or cannot be; whoever wanted it may have left."""
        done = self._open.get(number)
        if done is None or done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(ModelLoadFailed(error.message))

    def close(self) -> None:
        """Refuse those that are open, and all later ones."""
        self._is_closed = True
        for done in self._open.values():
            if not done.done():
                done.set_exception(_refusal())


def _refusal() -> ShuttingDown:
    return ShuttingDown("the server is shutting down and changes no models", retry_after_s=5.0)
