"""The link that `vilix up` prints, which brings the key along in its fragment."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from playwright.async_api import Browser, Page, Route, expect

from tests.e2e.page.conftest import DESKTOP, PHONE, OpenPage, screenshot, violations
from tests.e2e.stack import RunningStack

STORED = "sessionStorage.getItem('vilix-key')"
OTHER = f"vlx_{'a1' * 18}"
ELSEWHERE = "http://ai.example.com"


async def masked(page: Page) -> str:
    return await page.locator(".masked").first.text_content() or ""


def link_of(stack: RunningStack) -> str:
    """Return the link of the terminal's welcome."""
    found = re.search(r"http://127\.0\.0\.1:\d+/#key=\w+", stack.welcome)
    assert found, stack.welcome
    return found[0]


async def test_the_link_of_the_terminal_opens_the_playground_with_the_key(
    reasoning_stack: RunningStack, site: str, open_page: OpenPage
) -> None:
    page = await open_page(link_of(reasoning_stack))
    await page.wait_for_selector(".suggestions button:enabled")
    assert page.url == f"{site}/#playground"
    await expect(page.locator(".panel .note.good")).to_be_attached()
    assert await page.evaluate(STORED) == reasoning_stack.api_key
    assert reasoning_stack.api_key not in await page.evaluate("document.documentElement.outerHTML + document.referrer")
    # Nor is it an earlier page of the tab.
    await page.click("[data-view=documentation]")
    await page.go_back()
    assert page.url == f"{site}/#playground"


async def test_a_link_replaces_another_key_only_after_a_question(
    reasoning_stack: RunningStack, site: str, open_page: OpenPage
) -> None:
    for language, scheme, size in (("", "light", DESKTOP), ("en", "dark", PHONE)):
        page = await open_page(
            f"{site}/{language}#key={reasoning_stack.api_key}", scheme=scheme, size=size, expected_errors=("401",)
        )
        await page.wait_for_selector(".suggestions button:enabled")
        for button, stored in ((".button:not(.primary)", reasoning_stack.api_key), (".button.primary", OTHER)):
            # The page is open already, so that only its fragment changes.
            await page.evaluate(f"location.hash = '#key={OTHER}'")
            question = page.locator(".key-question")
            await question.wait_for()
            assert await page.evaluate(STORED) == reasoning_stack.api_key
            assert OTHER not in page.url
            assert await violations(page) == []
            await screenshot(page, f"key-question-{language or 'fa'}")
            await question.locator(button).click()
            await expect(question).to_have_count(0)
            assert await page.evaluate(STORED) == stored


async def test_a_page_of_another_machine_takes_no_key_from_a_link(site: str, browser: Browser) -> None:
    context = await browser.new_context()
    try:
        page = await context.new_page()

        async def serve(route: Route) -> None:
            parts = urlsplit(route.request.url)
            await route.fulfill(response=await route.fetch(url=f"{site}{parts.path}"))

        await page.route("**/*", serve)
        await page.goto(f"{ELSEWHERE}/#key={OTHER}")
        await page.wait_for_url(f"{ELSEWHERE}/")
        assert await page.evaluate(STORED) is None
        # A request that is still served when the context is closed would fail.
        await page.unroute_all(behavior="wait")
    finally:
        await context.close()
