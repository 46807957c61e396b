"""Errors of the admin API in its document, and the methods of its paths."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.routing import BaseRoute, Match


class AdminErrorObject(BaseModel):
    """An error."""

    message: str = Field(description="What is wrong, with the value and what to do.")
    type: str = Field(description="The kind of error.")
    param: str | None = Field(description="The path of the field that is wrong.")
    code: str = Field(description="A more precise name of the error.")


class AdminError(BaseModel):
    """The body of an error."""

    error: AdminErrorObject


_METHODS: Final = ("DELETE", "GET", "PATCH", "POST", "PUT")
_EXAMPLE: Final = {
    "error": {
        "message": "There is no key with the name or id 'shop'; `vilix keys list` shows those that exist.",
        "type": "invalid_request_error",
        "param": None,
        "code": "key_not_found",
    }
}
_DOCUMENTED: Final = {
    "model": AdminError,
    "content": {"application/json": {"examples": {"example": {"value": _EXAMPLE}}}},
}
RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {**_DOCUMENTED, "description": "The request is not valid, or not allowed."},
    "5XX": {**_DOCUMENTED, "description": "The request could not be answered."},
}
"""The errors of every operation. Those that FastAPI documents by itself have another format."""


def allowed_methods(request: Request) -> str:
    """Return the header `Allow` for the path of a request. Starlette names the methods of one of its routes alone."""
    routes: list[BaseRoute] = request.app.routes
    scopes = {method: {**request.scope, "method": method} for method in _METHODS}
    return ", ".join(
        method for method, scope in scopes.items() if any(route.matches(scope)[0] is Match.FULL for route in routes)
    )
