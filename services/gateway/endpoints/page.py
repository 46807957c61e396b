"""The page at `/`, with documentation and playground: built by `make site`, served from memory.

docs/adr/0016 says why no library for static files does it.
"""

from __future__ import annotations

import hashlib
import html
import logging
import mimetypes
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.endpoints.models import describe_all
from services.gateway.i18n.language import preferred
from services.gateway.routing.fleet import Fleet
from services.runtime.messages.catalogue import ENGLISH

GetEndpoint = Callable[[Request], Awaitable[Response]]
_MISSING: Final = {ENGLISH: "missing.en.html", "fa": "missing.html"}
_JSON: Final = "application/json"
_ENCODINGS: Final = (("br", ".br"), ("gzip", ".gz"))
_ASSETS: Final = "site/assets/"
"""The directory of files whose names contain a hash of their content."""
_API: Final = re.compile(rb'(<meta name="vilix-api" content=")[^"]*(")')
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class _File:
    bodies: Mapping[str, bytes]
    """By content encoding. `identity` is always present."""
    headers: Mapping[str, str]

    def response(self, request: Request) -> Response:
        headers = dict(self.headers)
        if headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        accepted = {part.split(";")[0].strip() for part in request.headers.get("accept-encoding", "").split(",")}
        encoding = next((name for name in self.bodies if name in accepted), "identity")
        if encoding != "identity":
            headers["content-encoding"] = encoding
        return Response(self.bodies[encoding], headers=headers)


class Page:
    """The built files, with their headers."""

    def __init__(self, directory: Path, *, api_url: str) -> None:
        """Read `directory`. `api_url` is the API's base URL as browsers reach it; empty means beside the page."""
        self._files: Final = {name: _load(directory, name, api_url) for name in _names(directory)}
        if not self._files:
            _log.warning("the page was not built: there is nothing in %s (make site builds it)", directory)

    def file(self, name: str) -> _File:
        """Return a file. Raises HTTPException (404) if it does not exist."""
        if name not in self._files:
            raise HTTPException(404)
        return self._files[name]

    def missing(self, request: Request) -> Response | None:
        """Return the page of an address that does not exist, or None if it is not built or no browser asks.

        A browser asks for HTML by the header `Accept`; programs that call the API do not.
        """
        name = _MISSING[preferred(request.headers.get("accept-language", ""))]
        if request.method != "GET" or "text/html" not in request.headers.get("accept", "") or name not in self._files:
            return None
        file = self._files[name]
        # Links are relative to the root, under whatever path a proxy serves it.
        depth = request.scope["path"].count("/") - 1
        body = file.bodies["identity"].replace(b'"./', b'"' + (b"../" * depth or b"./"))
        headers = {name: value for name, value in file.headers.items() if name != "etag"}
        return Response(body, 404, headers | {"vary": "accept, accept-language"})


def routes(page: Page, fleet: Fleet) -> Iterator[tuple[str, GetEndpoint]]:
    """Yield the path and the endpoint of each part of the page, which lists the models of `fleet`."""

    def document(name: str) -> GetEndpoint:
        async def endpoint(request: Request) -> Response:
            return page.file(name.format(**request.path_params)).response(request)

        return endpoint

    async def models(_: Request) -> Response:
        # It needs no key, and so returns only public fields.
        data = [{name: model[name] for name in _PUBLIC_FIELDS if name in model} for model in describe_all(fleet)]
        headers = {"cache-control": "public, max-age=10"}
        return Response(orjson.dumps({"models": data}), headers=headers, media_type=_JSON)

    yield "/", document("index.html")
    yield "/en", document("en.html")
    yield "/api/docs", document("api/docs.html")
    yield "/api/docs.en", document("api/docs.en.html")
    yield "/api/changes", document("api/changes.html")
    yield "/api/changes.en", document("api/changes.en.html")
    yield "/api/openapi.json", document("api/openapi.json")
    for name in _MARKDOWN:
        yield f"/{name}", document(name)
    for path, target in _REDIRECTS.items():
        yield path, _redirect(target)
    yield "/site/models.json", models
    yield "/site/{path:path}", document("site/{path}")


_MARKDOWN: Final = (
    "llms.txt", "en.md", "fa.md", "api/docs.md", "api/docs.en.md", "api/changes.md", "api/changes.en.md",
)  # fmt: skip
"""The pages as Markdown."""
_REDIRECTS: Final = {
    "/en/": "../en", "/fa": "./", "/fa/": "../", "/docs": "./", "/playground": "./#playground", "/index.html": "./",
    "/favicon.ico": "./site/mark.svg",
}  # fmt: skip
"""Addresses that people try, and where they lead, relative to them: the page may be under any path of a proxy."""


def _redirect(target: str) -> GetEndpoint:
    async def endpoint(_: Request) -> Response:
        return Response(status_code=308, headers={"location": target, "cache-control": "public, max-age=300"})

    return endpoint


_PUBLIC_FIELDS: Final = (
    "id", "available", "context_length", "capabilities", "supported_parameters", "dimensions", "checkpoint",
    "descriptions",
)  # fmt: skip


def _names(directory: Path) -> list[str]:
    files = (path for path in directory.rglob("*") if path.is_file() and path.suffix not in {".br", ".gz"})
    return sorted(path.relative_to(directory).as_posix() for path in files)


def _load(directory: Path, name: str, api_url: str) -> _File:
    path = directory / name
    body = path.read_bytes()
    compressed = {encoding: path.with_name(path.name + suffix) for encoding, suffix in _ENCODINGS}
    bodies = {encoding: file.read_bytes() for encoding, file in compressed.items() if file.exists()}
    headers = {"x-content-type-options": "nosniff", "cross-origin-resource-policy": "same-origin"}
    if path.suffix == ".html":
        if api_url:
            body, bodies = _API.sub(rb"\g<1>" + html.escape(api_url).encode() + rb"\g<2>", body), {}
        headers |= _document_headers(api_url)
    headers["content-type"] = _content_type(path)
    headers["cache-control"] = "public, max-age=31536000, immutable" if name.startswith(_ASSETS) else "no-cache"
    headers["etag"] = f'W/"{hashlib.sha256(body).hexdigest()[:20]}"'
    headers["vary"] = "accept-encoding"
    return _File({**bodies, "identity": body}, headers)


def _document_headers(api_url: str) -> dict[str, str]:
    parts = urlsplit(api_url)
    api_origin = f" {parts.scheme}://{parts.netloc}" if parts.netloc else ""
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data: blob:; "
        f"connect-src 'self'{api_origin}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        # Only the output of the sanitiser may become markup.
        "require-trusted-types-for 'script'; trusted-types dompurify"
    )
    return {
        "content-security-policy": policy,
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    }


def _content_type(path: Path) -> str:
    guessed = {".woff2": "font/woff2", ".js": "text/javascript", ".json": _JSON, ".md": "text/markdown"}.get(
        path.suffix
    )
    kind = guessed or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
