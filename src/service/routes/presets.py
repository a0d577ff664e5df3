"""GET /v1/presets: the named sets of options that a request may name as `preset`."""

from __future__ import annotations

from litestar import Response, get

from contracts.presets import PRESETS, PresetList


@get("/v1/presets", sync_to_thread=False)
def list_presets() -> Response[PresetList]:
    """All of them."""
    return Response(PresetList(data=list(PRESETS.values())), headers={"cache-control": "no-cache"})


HANDLERS = (list_presets,)
