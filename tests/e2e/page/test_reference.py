"""Requests that a visitor sends from the reference, keyboard help, and the page of a missing address."""

from __future__ import annotations

import json
import re
from urllib.parse import urljoin

import httpx
import pytest
from playwright.async_api import expect

from tests.e2e.page.conftest import PHONE, OpenPage, Scripted, screenshot, violations
from tests.support.scripted_worker import MODEL, content, finish, started, usage


async def test_a_visitor_sends_a_request_from_the_reference(scripted: Scripted, open_page: OpenPage) -> None:
    scripted.worker.script = [[started()], [content("It is Tehran."), finish(), usage()]]
    page = await open_page(f"{scripted.url.removesuffix('/api')}/api/docs.en")
    form = page.locator("#try-post-chat-completions")
    await form.locator("summary").click()
    body = form.locator("textarea")
    # The example asks for a model that is served.
    await expect(body).to_have_value(re.compile(f'"model": "{re.escape(MODEL)}"'))
    # A header that was pasted as it stands is a key, too.
    await form.locator("[name=key]").fill(f"Bearer {scripted.api_key}")
    await form.get_by_role("button", name="Send").click()
    await expect(form.locator("[role=status]")).to_contain_text("200")
    answer = json.loads(await form.locator("pre").inner_text())
    assert answer["choices"][0]["message"]["content"] == "It is Tehran."
    await body.fill("{")
    await form.get_by_role("button", name="Send").click()
    await expect(form.locator("[role=status]")).to_contain_text("not valid JSON")
    # The playground has the key now.
    assert await page.evaluate("sessionStorage.getItem('vilix-key')") == scripted.api_key
    await screenshot(page, "reference-try-it")


async def test_a_question_mark_lists_the_keys(scripted: Scripted, open_page: OpenPage) -> None:
    site = scripted.url.removesuffix("/api")
    page = await open_page(f"{site}/no/such/page", size=PHONE, expected_errors=("404",))
    await expect(page.locator("h1")).to_have_text("There is no such page")
    await page.keyboard.press("?")
    dialog = page.locator("dialog.keyboard")
    await expect(dialog).to_be_visible()
    assert await violations(page) == []
    await screenshot(page, "keyboard-help")
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    # Its links lead to the pages, however deep the address was.
    await page.locator("main").get_by_role("link", name="API changes").click()
    await expect(page.locator("h1")).to_have_text("API changes")
    assert page.url == f"{site}/api/changes.en"


@pytest.mark.parametrize("path", ["", "en", "api/docs", "api/docs.en", "api/changes", "api/changes.en"])
async def test_a_page_names_itself_and_its_other_language(scripted: Scripted, path: str) -> None:
    async with httpx.AsyncClient(base_url=scripted.url) as client:
        page = await client.get(f"/{path}")
        links = {
            name: urljoin(str(page.url), href)
            for name, href in re.findall(r'<link +rel="(canonical|alternate" hreflang="..)" href="([^"]*)"', page.text)
        }
        assert links.pop("canonical") == str(page.url)
        assert len(links) == 2
        for name, url in links.items():
            other = await client.get(url)
            assert other.status_code == 200
            assert f'<html lang="{name[-2:]}"' in other.text
    assert f'<meta property="og:title" content="{title(page.text)}">' in page.text


def title(html: str) -> str:
    return html.partition("<title>")[2].partition("</title>")[0]
