"""The parts that all of OpenAI's APIs share: the credential, errors, and headers about limits."""

from __future__ import annotations

from collections.abc import Mapping

from services.gateway.credential import Credential, read_openai
from services.gateway.dialects import openai_errors
from services.gateway.dialects.dialect import ErrorReply
from services.gateway.dialects.openai_limits import limit_headers
from services.gateway.errors import ApiError
from services.gateway.limit_status import RateLimits


class OpenAIDialect:
    """Base of the dialects of OpenAI's APIs."""

    def credential(self, headers: Mapping[str, str]) -> Credential:
        """Return the key of `Authorization: Bearer KEY`, or of Azure's `api-key: KEY`."""
        return read_openai(headers)

    def error(self, error: ApiError, *, request_id: str) -> ErrorReply:
        """Render an error. OpenAI's errors have the request id in a header, not in the body."""
        return openai_errors.render(error)

    def response_headers(self, limits: RateLimits, *, request_id: str) -> dict[str, str]:
        """Return `x-ratelimit-*`."""
        return limit_headers(limits)
