"""The page when something fails, or when the API is elsewhere. The worker is a stand-in that fails on cue."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from playwright.async_api import Page, Route
from redis.asyncio import Redis

from services.gateway.tenancy import keys
from tests.e2e.page.conftest import OpenPage, Scripted, ask, enter_key, screenshot
from tests.support.gateway import running_gateway, until_ready
from tests.support.scripted_worker import MODEL, content, finish, started, usage

COMPLETE = '.turn.answer[data-status="complete"]'
FAILED = '.turn.answer[data-status="failed"]'


async def opened(page: Page, api_key: str) -> Page:
    await page.wait_for_selector(".lab")
    await enter_key(page, api_key)
    await page.select_option(".model-choice select", MODEL)
    return page


async def half_a_response(scripted: Scripted, page: Page) -> None:
    """Send a message whose response stops in the middle, and wait until its first words are displayed."""
    scripted.worker.script = [[started()], [content("the first half")], asyncio.Event()]
    await ask(page, "?")
    await page.wait_for_selector(".turn.answer > .markdown")


async def assert_half(page: Page, words: str) -> None:
    await page.wait_for_selector(FAILED)
    assert words in await page.locator(".problem").inner_text()
    assert await page.locator(".turn.answer > .markdown").inner_text() == "the first half"
    # Screen readers must not announce that the response is complete.
    assert "کامل شد" not in await page.locator(".turn.answer [aria-live]").inner_text()
    assert await page.locator(".send:not(.stop)").is_enabled()


async def test_a_worker_that_dies_during_a_response_is_a_failure_that_can_be_retried(
    scripted: Scripted, open_page: OpenPage
) -> None:
    page = await opened(await open_page(scripted.url + "/#playground"), scripted.api_key)
    await half_a_response(scripted, page)
    await scripted.worker.server.stop(None)
    await assert_half(page, "مدل در میانهٔ پاسخ از دسترس خارج شد")
    await screenshot(page, "worker-died")


async def test_a_gateway_that_dies_during_a_response_leaves_it_marked_as_cut_off(
    scripted: Scripted, open_page: OpenPage
) -> None:
    page = await opened(await open_page(scripted.url + "/#playground", expected_errors=("ERR_",)), scripted.api_key)
    await half_a_response(scripted, page)
    scripted.process.kill()
    await assert_half(page, "در میانهٔ پاسخ قطع شد")
    # Now the API is unreachable.
    await page.locator(".turn.answer .act").nth(1).click()
    await page.wait_for_selector(FAILED)
    assert "اتصال خود را بررسی کنید" in await page.locator(".problem").inner_text()


async def test_a_stream_without_its_last_event_is_cut_off(scripted: Scripted, open_page: OpenPage) -> None:
    """A proxy's timeout can end a stream in this way, without an error."""
    page = await opened(await open_page(scripted.url + "/#playground"), scripted.api_key)
    chunk = '{"choices":[{"index":0,"delta":{"content":"the first half"},"finish_reason":null}]}'

    async def half(route: Route) -> None:
        await route.fulfill(content_type="text/event-stream", body=f"data: {chunk}\n\n")

    await page.route("**/chat/completions", half)
    await ask(page, "?")
    await assert_half(page, "در میانهٔ پاسخ قطع شد")


async def test_a_key_that_was_revoked_meanwhile_is_reported(scripted: Scripted, open_page: OpenPage) -> None:
    page = await opened(await open_page(scripted.url + "/en#playground", expected_errors=("401",)), scripted.api_key)
    async with Redis.from_url(scripted.redis_url, decode_responses=True) as redis:
        await keys.revoke(redis, "page")
    await ask(page, "?")
    await page.wait_for_selector(FAILED)
    assert "The key is wrong or was revoked." in await page.locator(".problem").inner_text()
    await page.wait_for_selector(".talk-key .note.wrong")


@pytest.mark.parametrize("language", ["fa", "en"])
async def test_a_rate_limit_is_reported_with_the_time_to_wait(
    scripted: Scripted, open_page: OpenPage, language: str
) -> None:
    path, words = {"fa": ("/", "ثانیه صبر کنید"), "en": ("/en", "Wait")}[language]
    async with Redis.from_url(scripted.redis_url, decode_responses=True) as redis:
        _, secret = await keys.create(redis, name="slow", limits={"rpm": 1})
    scripted.worker.script = [[started()], [content("yes"), finish(), usage()]]
    page = await opened(await open_page(f"{scripted.url}{path}#playground", expected_errors=("429",)), secret)
    await ask(page, "?")
    await page.wait_for_selector(COMPLETE)
    await ask(page, "?")
    await page.wait_for_selector(FAILED)
    assert words in await page.locator(".problem").inner_text()


async def test_every_setting_is_sent_in_the_request(scripted: Scripted, open_page: OpenPage) -> None:
    scripted.worker.script = [[started()], [content("{}"), finish(), usage()]]
    page = await opened(await open_page(scripted.url + "/en#playground"), scripted.api_key)
    await page.fill(".panel textarea >> nth=0", "Be brief.")
    await page.fill("#temperature", "0.3")
    await page.fill("#max-tokens", "77")
    await page.click(".json-field:first-of-type summary")
    await page.click(".json-field:first-of-type .act")
    await ask(page, "?")
    await page.wait_for_selector(COMPLETE)
    request = scripted.worker.requests[-1]
    assert request.messages[0].content[0].text == "Be brief."
    assert request.sampling.temperature == pytest.approx(0.3)
    assert request.sampling.max_tokens == 77
    assert '"title"' in str(request).replace("\\", "")


async def test_the_api_can_be_on_another_host(scripted: Scripted, open_page: OpenPage, tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    with running_gateway(
        scripted.redis_url,
        scripted.worker.address,
        tmp_path / "page/gateway.log",
        VILIX_PUBLIC_API_URL=f"{scripted.url}/api",
    ) as (url, _):
        await until_ready(url)
        scripted.worker.script = [[started()], [content("from afar"), finish(), usage()]]
        page = await opened(await open_page(url + "/en#playground", api=scripted.url), scripted.api_key)
        await ask(page, "?")
        await page.wait_for_selector(COMPLETE)
        assert "from afar" in await page.locator(".turn.answer > .markdown").inner_text()
        assert f"{scripted.url}/api" in await page.evaluate(
            "document.querySelector('[data-file=\"chat.py\"]').textContent"
        )


async def test_pages_do_not_scroll_horizontally(scripted: Scripted, open_page: OpenPage) -> None:
    paths = ("/", "/en", "/#playground", "/en#playground", "/api/docs", "/api/docs.en", "/api/changes", "/none")
    for path in paths:
        page = await open_page(scripted.url + path, expected_errors=("404",))
        await page.wait_for_selector(".lab" if "#" in path else "html[data-filled]", state="attached")
        await page.evaluate("document.fonts.ready")
        name = re.sub(r"\W+", "-", f"width{path}")
        for width in (320, 390, 820, 1920):
            await page.set_viewport_size({"width": width, "height": 1000})
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} at {width}"
            await screenshot(page, f"{name}-{width}")
