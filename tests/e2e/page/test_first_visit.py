"""A first visit transfers little, because what is not shown at first is loaded later."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Page

from tests.e2e.page.conftest import OpenPage, Scripted, ask, enter_key
from tests.support.scripted_worker import MODEL, content, finish, started, usage

MOST_BYTES = 150_000
SHOWN = {"/": "html[data-filled]", "/en": "html[data-filled]", "/#playground": ".lab", "/en#playground": ".lab"}


class Transfers:
    """The bytes of each response that a page has received, with headers, as they were compressed."""

    def __init__(self) -> None:
        self._urls: dict[str, str] = {}
        self.sizes: dict[str, int] = {}

    async def watch(self, page: Page) -> None:
        session = await page.context.new_cdp_session(page)
        await session.send("Network.enable")
        session.on("Network.responseReceived", self._named)
        session.on("Network.loadingFinished", self._finished)

    def _named(self, event: dict[str, Any]) -> None:
        self._urls[event["requestId"]] = event["response"]["url"]

    def _finished(self, event: dict[str, Any]) -> None:
        url = self._urls.get(event["requestId"], "")
        if url.startswith("http"):
            self.sizes[url] = self.sizes.get(url, 0) + int(event["encodedDataLength"])


@pytest.mark.parametrize("path", SHOWN)
async def test_a_first_visit_transfers_at_most_150_kilobytes(
    scripted: Scripted, open_page: OpenPage, path: str
) -> None:
    page = await open_page("about:blank")
    transfers = Transfers()
    await transfers.watch(page)
    # A page whose requests are intercepted has no cache.
    await page.unroute("**/*")
    await page.goto(scripted.url + path)
    await page.wait_for_selector(SHOWN[path], state="attached")
    await page.evaluate("document.fonts.ready")
    await page.wait_for_load_state("networkidle")
    table = "\n".join(f"{size:>8} {url}" for url, size in sorted(transfers.sizes.items(), key=lambda item: -item[1]))
    print(f"{path}: {sum(transfers.sizes.values())} bytes\n{table}")
    assert any(url.endswith(".woff2") for url in transfers.sizes), table
    assert any(".js" in url for url in transfers.sizes), table
    assert sum(transfers.sizes.values()) <= MOST_BYTES, table


async def test_the_highlighter_is_loaded_with_the_first_code(scripted: Scripted, open_page: OpenPage) -> None:
    page = await open_page(scripted.url + "/en#playground")
    await page.wait_for_selector(".lab")
    await enter_key(page, scripted.api_key)
    await page.select_option(".model-choice select", MODEL)
    scripted.worker.script = [[started()], [content("```python\nprint(1)\n```"), finish(), usage()]]
    await ask(page, "?")
    await page.wait_for_selector(".answer pre .hljs-number")
    assert await page.locator(".answer pre code").inner_text() == "print(1)"
