"""The routes of the API, as tools write them: under several prefixes, with or without a slash at the end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from starlette.routing import BaseRoute, Route

OUR_PREFIX: Final = "/api"
PREFIXES: Final = (OUR_PREFIX, "/v1", "/api/v1", "")
"""Prefixes of the API's paths: ours, and those that tools require or make of the base URL that they were given."""


class ApiRoute(Route):
    """A route that also matches its path with a slash at the end. A redirect would make clients drop the body."""

    def __init__(self, path: str, endpoint: Callable[..., Any], *, methods: list[str] | None = None) -> None:
        """Route `path` to `endpoint`, which handles all methods itself unless they are given."""
        super().__init__(path, endpoint, methods=methods)
        pattern = self.path_regex.pattern.removesuffix("$").replace(".*)", ".*?)")
        self.path_regex = re.compile(f"{pattern}/?$")


def api_paths(routes: Iterable[BaseRoute]) -> Iterator[str]:
    """Yield the paths under our prefix that have no parameters."""
    paths = (route.path for route in routes if isinstance(route, Route) and not route.param_convertors)
    yield from (path for path in paths if path.startswith(f"{OUR_PREFIX}/") and "/v1/" not in path)
