"""What a visitor of the playground sees while an answer waits or the model reasons, and images it cannot read."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
from playwright.async_api import expect
from redis.asyncio import Redis

from services.gateway.tenancy import keys
from tests.e2e.page.conftest import OpenPage, Scripted, ask, enter_key
from tests.support.gateway import EXPECTED, running_gateway, until_ready
from tests.support.scripted_worker import MODEL, content, finish, reasoning, started, usage
from tests.support.waits import until

COMPLETE = '.turn.answer[data-status="complete"]'
TIERS = "tiers:\n  patient: {concurrency: 1, queue: true, queue_length: 5, queue_seconds: 60}\n"


async def test_a_queued_request_says_its_position(scripted: Scripted, open_page: OpenPage, tmp_path: Path) -> None:
    tiers = tmp_path / "tiers.yaml"
    tiers.write_text(TIERS)
    async with Redis.from_url(scripted.redis_url, decode_responses=True) as redis:
        _, secret = await keys.create(redis, name="patient", tier="patient")
    begin = asyncio.Event()
    scripted.worker.script = [begin, [started()], [content("yes"), finish(), usage()]]
    log = tmp_path / "queue.log"
    with running_gateway(scripted.redis_url, scripted.worker.address, log, VILIX_TIERS_FILE=str(tiers)) as (url, _):
        await until_ready(url)
        page = await open_page(url + "/en#playground")
        await page.wait_for_selector(".lab")
        await enter_key(page, secret)
        await page.select_option(".model-choice select", MODEL)
        body = {"model": MODEL, "messages": [{"role": "user", "content": "?"}]}
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {secret}"}, timeout=60) as client:
            first = asyncio.create_task(client.post(f"{url}/api/chat/completions", json=body))
            await until(lambda: bool(scripted.worker.requests))
            await ask(page, "?")
            await expect(page.locator(".turn.answer .state")).to_contain_text("Queued, position 1")
            begin.set()
            assert (await first).status_code == 200
        await page.wait_for_selector(COMPLETE)


async def test_reasoning_has_a_clock(scripted: Scripted, open_page: OpenPage) -> None:
    page = await open_page(scripted.url + "/en#playground")
    await page.wait_for_selector(".lab")
    await enter_key(page, scripted.api_key)
    await page.select_option(".model-choice select", MODEL)
    go_on = asyncio.Event()
    scripted.worker.script = [[started()], [reasoning("hm")], go_on, [content("yes"), finish(), usage()]]
    await ask(page, "?")
    await expect(page.locator(".reasoning .clock")).to_have_text("1 s", timeout=10_000)
    go_on.set()
    await page.wait_for_selector(COMPLETE)
    await expect(page.locator(".reasoning button")).to_contain_text("Reasoned for")


async def test_an_image_that_the_model_does_not_see_is_refused_with_a_reason(
    scripted: Scripted, open_page: OpenPage
) -> None:
    page = await open_page(scripted.url + "/en#playground")
    await page.wait_for_selector(".lab")
    await enter_key(page, scripted.api_key)
    await page.select_option(".model-choice select", EXPECTED)
    await page.evaluate(
        """() => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array([137, 80])], 'a.png', {type: 'image/png'}));
          const paste = new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true});
          document.querySelector('.composer textarea').dispatchEvent(paste);
        }"""
    )
    await expect(page.locator(".composer [role=alert]")).to_contain_text("does not see images")
