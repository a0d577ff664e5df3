"""The page at /, the API page at /docs, their assets and /openapi.json; nothing on them comes from elsewhere."""

from __future__ import annotations

import gzip
import hashlib
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any, Final

import msgspec
from litestar import Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from service.mailboxes import Mailboxes
from service.routes.health import HealthStatus, health_of

_MEDIA_TYPES: Final = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
    "txt": "text/plain",
}
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    )
)
"""Nothing is loaded from elsewhere, and no text becomes markup or code but through the sanitiser."""
_HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_COMPRESSED: Final = frozenset({"html", "css", "js", "txt"})


class Asset(msgspec.Struct, frozen=True, kw_only=True):
    """One file, ready to be sent."""

    content: bytes
    compressed: bytes | None
    """With gzip, where that is worth it."""
    tag: str
    """Changes with the content, so that a browser that has it is sent nothing."""


class Pages(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is served as it is; read once, when the application is made."""

    files: dict[str, Asset]
    openapi: bytes
    endpoints: dict[str, str]


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    """What / says to a program."""

    message: str
    version: str
    status: HealthStatus
    description: str
    endpoints: dict[str, str]
    """Path, or method and path, to what it does."""
    docs: str = "/docs"
    openapi: str = "/openapi.json"
    inference_queue_size: int
    """Requests that wait."""
    active_connections: int
    """Clients that listen at /api/v1/chat/stream, about."""


def load_pages(openapi: bytes, endpoints: dict[str, str]) -> Pages:
    """Read the files of the page from the package, beside the description of the API and its short form."""
    folder = files("service") / "ui"
    return Pages(
        files={
            entry.name: _asset(entry.name, entry.read_bytes())
            for entry in folder.iterdir()
            if _media_type(entry.name) is not None
        },
        openapi=openapi,
        endpoints=endpoints,
    )


@get("/", sync_to_thread=False)
def show_root(request: Request[Any, Any, Any]) -> Response[Any]:
    """The chat page for browsers, a short description for everyone else."""
    if "text/html" in request.headers.get("accept", ""):
        return _page(request, "index.html", vary=True)
    pages: Pages = request.app.state["pages"]
    mailboxes: Mailboxes = request.app.state["mailboxes"]
    health = health_of(request)
    welcome = Welcome(
        message="Quire serves an OpenAI-compatible API: point a client's base URL at /v1.",
        version=package_version(),
        status=health.status,
        description="LLM inference: concurrent requests are gathered, step by step, into one batch.",
        endpoints=pages.endpoints,
        inference_queue_size=health.waiting or 0,
        active_connections=mailboxes.num_everywhere,
    )
    return Response(welcome, headers={"vary": "accept", "cache-control": "no-store"})


@get(["/docs", "/redoc"], sync_to_thread=False)
def show_docs(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The API page."""
    return _page(request, "docs.html")


@get("/openapi.json", sync_to_thread=False)
def show_openapi(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The description of the API."""
    pages: Pages = request.app.state["pages"]
    return Response(pages.openapi, media_type="application/json")


@get("/assets/{name:str}", sync_to_thread=False)
def show_asset(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
    """A style sheet, script, icon or notice; only names that were read at the start."""
    return asset_reply(request, name)


def package_version() -> str:
    """The installed version; `0` when run from a checkout that is not installed."""
    try:
        return version("quire")
    except PackageNotFoundError:
        return "0"


def asset_reply(request: Request[Any, Any, Any], name: str) -> Response[bytes]:
    """A file of the pages."""
    return _page(request, name)


def _page(request: Request[Any, Any, Any], name: str, *, vary: bool = False) -> Response[bytes]:
    pages: Pages = request.app.state["pages"]
    asset = pages.files.get(name)
    if asset is None:
        raise NotFoundException
    headers = _HEADERS | {"etag": asset.tag, "vary": "accept, accept-encoding" if vary else "accept-encoding"}
    if asset.tag in request.headers.get("if-none-match", ""):
        return Response(b"", status_code=304, headers=headers)
    content = asset.content
    if asset.compressed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        content = asset.compressed
        headers["content-encoding"] = "gzip"
    return Response(content, media_type=_media_type(name) or "", headers=headers)


def _asset(name: str, content: bytes) -> Asset:
    is_compressed = name.rpartition(".")[2] in _COMPRESSED
    return Asset(
        content=content,
        compressed=gzip.compress(content, mtime=0) if is_compressed else None,
        tag=f'W/"{hashlib.sha256(content).hexdigest()[:16]}"',
    )


def _media_type(name: str) -> str | None:
    return _MEDIA_TYPES.get(name.rpartition(".")[2])


HANDLERS = (show_root, show_docs, show_openapi, show_asset)
