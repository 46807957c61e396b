"""The playground shows the holder of a key its usage and limits."""

from __future__ import annotations

import httpx
import pytest
from playwright.async_api import expect
from redis.asyncio import Redis

from services.gateway.tenancy import keys
from services.gateway.tenancy.limits import Limits
from tests.e2e.page.conftest import PHONE, OpenPage, Scripted, ask, enter_key, screenshot, violations
from tests.support.scripted_worker import MODEL, content, finish, started, usage
from tests.support.waits import until

COMPLETE = '.turn.answer[data-status="complete"]'


@pytest.fixture
async def limited_key(scripted: Scripted) -> str:
    async with Redis.from_url(scripted.redis_url, decode_responses=True) as redis:
        _, secret = await keys.create(redis, name="limited", limits=Limits(rpm=60, daily_tokens=1_000_000))
    return secret


async def is_used(scripted: Scripted, key: str) -> bool:
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {key}"}) as client:
        return bool((await client.get(f"{scripted.url}/api/usage")).json()["today"]["requests"])


async def test_the_holder_of_a_key_sees_its_usage_and_what_is_left(
    scripted: Scripted, open_page: OpenPage, limited_key: str
) -> None:
    page = await open_page(scripted.url + "/en#playground")
    await page.wait_for_selector(".lab")
    panel = page.locator(".usage")
    await expect(panel).to_have_count(0)
    await enter_key(page, limited_key)
    await panel.locator("summary").click()
    await expect(panel.locator("li", has_text="Requests per minute")).to_contain_text("60 of 60 left")
    await expect(panel.locator("li")).to_have_count(2)
    await page.select_option(".model-choice select", MODEL)
    scripted.worker.script = [[started()], [content("yes"), finish(), usage()]]
    await ask(page, "?")
    await page.wait_for_selector(COMPLETE)
    # What was used is recorded shortly after the answer's end.
    await until(lambda: is_used(scripted, limited_key), 20, "the answer is in the usage")
    await panel.get_by_role("button", name="Refresh").click()
    row = panel.locator("tr", has_text=MODEL)
    await expect(row.locator("td")).to_have_text(["5", "5"])
    await expect(panel.locator("tr", has_text="Requests")).to_contain_text("1")
    await expect(panel.locator("li", has_text="Tokens per day")).to_contain_text("of 1,000,000 left")
    assert await violations(page) == []
    await screenshot(page, "usage-en")


async def test_an_answer_has_its_receipt_in_both_languages(
    scripted: Scripted, open_page: OpenPage, limited_key: str
) -> None:
    words = {
        "/en#playground": ("Receipt of the request", "Tokens of the answer", "2", "Usage recorded", "ms"),
        "/#playground": ("رسید درخواست", "توکن‌های پاسخ", "۲", "مصرف ثبت شد", "میلی‌ثانیه"),
    }
    for path, (title, answer, tokens, settled, unit) in words.items():
        page = await open_page(scripted.url + path)
        await page.wait_for_selector(".lab")
        await enter_key(page, limited_key)
        await page.select_option(".model-choice select", MODEL)
        scripted.worker.script = [[started()], [content("yes"), finish(), usage()]]
        await ask(page, "?")
        await page.wait_for_selector(COMPLETE)
        receipt = page.locator(".receipt")
        await receipt.locator("summary", has_text=title).click()
        await expect(receipt.locator("tr", has_text="complete")).to_have_count(1)
        await expect(receipt.locator("tr", has_text=answer).locator("td")).to_have_text(tokens)
        await expect(receipt.locator("tr", has_text=settled).locator("td")).to_contain_text(unit)
        assert await violations(page) == []


async def test_usage_has_persian_digits_and_fits_a_phone(
    scripted: Scripted, open_page: OpenPage, limited_key: str
) -> None:
    page = await open_page(scripted.url + "/#playground", size=PHONE)
    await page.fill("#welcome-key", limited_key)
    await page.press("#welcome-key", "Enter")
    await page.click(".panel-toggle")
    await page.locator(".usage summary").click()
    await expect(page.locator(".usage li", has_text="درخواست در دقیقه")).to_contain_text("۶۰ از ۶۰ مانده")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await violations(page) == []
    await screenshot(page, "usage-fa-phone")


async def test_a_key_without_limits_is_said_to_have_none(scripted: Scripted, open_page: OpenPage) -> None:
    page = await open_page(scripted.url + "/en#playground")
    await page.wait_for_selector(".lab")
    await enter_key(page, scripted.api_key)
    await page.locator(".usage summary").click()
    await expect(page.locator(".usage")).to_contain_text("This key has no limits.")
