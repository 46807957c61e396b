"""The whole stack, which `vilix up` starts once for all tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import openai
import pytest

from tests.e2e.stack import RunningStack, up


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with up(tmp_path_factory.mktemp("stack")) as running:
        yield running
        assert running.stop() == 0


@pytest.fixture(scope="session")
def client(stack: RunningStack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=stack.url, api_key=stack.api_key, max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


@pytest.fixture(scope="session")
async def async_client(stack: RunningStack) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=stack.url, api_key=stack.api_key, max_retries=0, _strict_response_validation=True
    ) as client:
        yield client
