"""What must not stop a visitor of the playground: a wrong key, a reload, a model that goes away."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Page, expect

from tests.e2e.page.conftest import PHONE, OpenPage, Scripted, ask, enter_key, screenshot, violations
from tests.support.scripted_worker import MODEL, content, finish, started, usage

TABLET = (820, 1180)
COMPLETE = '.turn.answer[data-status="complete"]'


def answers(scripted: Scripted, text: str) -> None:
    scripted.worker.script = [[started()], [content(text), finish(), usage()]]


async def opened(page: Page, scripted: Scripted) -> Page:
    await page.wait_for_selector(".lab")
    await enter_key(page, scripted.api_key)
    await page.select_option(".model-choice select", MODEL)
    return page


@pytest.mark.parametrize("size", [PHONE, TABLET], ids=["phone", "tablet"])
async def test_a_wrong_key_is_reported_where_it_was_typed(
    scripted: Scripted, open_page: OpenPage, size: tuple[int, int]
) -> None:
    page = await open_page(scripted.url + "/#playground", size=size, expected_errors=("401",))
    await page.fill("#welcome-key", "vlx_wrong")
    await page.press("#welcome-key", "Enter")
    note = page.locator(".welcome-key .note.wrong")
    await note.wait_for()
    assert "پذیرفته نشد" in await note.inner_text()
    # What was typed can be corrected.
    assert await page.locator("#welcome-key").input_value() == "vlx_wrong"
    assert await violations(page) == []
    await screenshot(page, f"wrong-key-{size[0]}")
    # The header may be pasted as it stands in the documentation.
    await page.fill("#welcome-key", f"Bearer {scripted.api_key}")
    await page.press("#welcome-key", "Enter")
    await page.wait_for_selector(".suggestions button:enabled")


async def test_a_wrong_key_for_embeddings_is_reported_where_it_was_typed(
    scripted: Scripted, open_page: OpenPage
) -> None:
    page = await open_page(scripted.url + "/en#playground", expected_errors=("401",))
    await page.click("#lab-tab-vectors")
    await page.fill("#vectors-key", "vlx_wrong")
    await page.press("#vectors-key", "Enter")
    await page.wait_for_selector(".vectors .note.wrong")
    assert await page.locator("#vectors-key").input_value() == "vlx_wrong"


async def test_a_key_that_is_refused_later_can_be_replaced_without_the_settings(
    scripted: Scripted, open_page: OpenPage
) -> None:
    page = await open_page(scripted.url + "/en#playground", size=PHONE)
    await page.fill("#welcome-key", scripted.api_key)
    await page.press("#welcome-key", "Enter")
    await page.wait_for_selector(".suggestions button:enabled")
    answers(scripted, "yes")
    await ask(page, "?")
    await page.wait_for_selector(COMPLETE)
    await page.click(".panel-toggle")
    await page.click(".panel .key-box button")
    await page.click(".panel-close")
    await page.fill("#talk-key", scripted.api_key)
    await page.press("#talk-key", "Enter")
    await expect(page.locator("#talk-key")).to_have_count(0)


async def test_numbers_can_be_typed_in_persian_digits(scripted: Scripted, open_page: OpenPage) -> None:
    answers(scripted, "yes")
    page = await opened(await open_page(scripted.url + "/#playground"), scripted)
    await page.fill("#max-tokens", "۸۰")
    await ask(page, "?")
    await page.wait_for_selector(COMPLETE)
    assert scripted.worker.requests[-1].sampling.max_tokens == 80
    await page.fill("#max-tokens", "زیاد")
    assert await page.locator("#max-tokens-note").is_visible()


async def test_a_conversation_survives_a_reload_and_the_other_language(scripted: Scripted, open_page: OpenPage) -> None:
    answers(scripted, "the answer")
    page = await opened(await open_page(scripted.url + "/#playground"), scripted)
    await page.fill(".panel textarea >> nth=0", "Be brief.")
    await ask(page, "the question")
    await page.wait_for_selector(COMPLETE)
    await page.reload()
    await page.wait_for_selector(COMPLETE)
    await page.click("[data-language-switch]")
    await page.wait_for_url("**/en#playground")
    await page.wait_for_selector(COMPLETE)
    assert await page.locator(".turn.question").inner_text() == "the question"
    assert await page.locator(".panel textarea").first.input_value() == "Be brief."
    await page.wait_for_selector(".panel .note.good", state="attached")
    await ask(page, "another one")
    await expect(page.locator(COMPLETE)).to_have_count(2)
    sent = [message.content[0].text for message in scripted.worker.requests[-1].messages]
    assert sent == ["Be brief.", "the question", "the answer", "another one"]


async def test_a_failed_question_is_not_sent_with_the_next_one(scripted: Scripted, open_page: OpenPage) -> None:
    page = await opened(await open_page(scripted.url + "/en#playground", expected_errors=("500", "503")), scripted)
    scripted.worker.script = [RuntimeError("it failed")]
    await ask(page, "the first")
    await page.wait_for_selector('.turn.answer[data-status="failed"]')
    answers(scripted, "yes")
    await ask(page, "the second")
    await page.wait_for_selector(COMPLETE)
    assert [message.content[0].text for message in scripted.worker.requests[-1].messages] == ["the second"]


async def test_answers_have_versions(scripted: Scripted, open_page: OpenPage) -> None:
    page = await opened(await open_page(scripted.url + "/en#playground"), scripted)
    answers(scripted, "one")
    await ask(page, "?")
    await page.wait_for_selector(COMPLETE)
    answers(scripted, "two")
    await page.locator(".act", has_text="Retry").click()
    text = page.locator(".turn.answer > .markdown")
    await expect(text).to_have_text("two")
    await page.wait_for_selector(COMPLETE)
    await page.get_by_label("Earlier answer").click()
    await expect(text).to_have_text("one")
    await expect(page.locator(".versions")).to_contain_text("1 of 2")
    answers(scripted, "yes")
    await ask(page, "go on")
    await expect(page.locator(COMPLETE)).to_have_count(2)
    assert scripted.worker.requests[-1].messages[1].content[0].text == "one"


async def test_the_lists_follow_a_model_that_goes_away(scripted: Scripted, open_page: OpenPage) -> None:
    page = await opened(await open_page(scripted.url + "/en#playground"), scripted)
    await scripted.worker.server.stop(None)
    option = page.locator(".model-choice option")
    async with asyncio.timeout(40):
        while "not available" not in (await option.first.text_content() or ""):
            await page.evaluate("dispatchEvent(new Event('focus'))")
            await asyncio.sleep(0.2)
    await expect(page.locator(".model .state").first).to_have_text("not available now")


async def test_what_a_model_cannot_do_is_disabled_with_a_reason(scripted: Scripted, open_page: OpenPage) -> None:
    answers(scripted, "yes")
    page = await opened(await open_page(scripted.url + "/en#playground"), scripted)
    tools = page.locator(".json-field").last
    await tools.locator("summary").click()
    assert "calls no tools" in await tools.inner_text()
    assert await tools.locator("textarea").is_disabled()


async def test_an_answer_in_json_is_a_block_with_its_validity(scripted: Scripted, open_page: OpenPage) -> None:
    page = await opened(await open_page(scripted.url + "/en#playground"), scripted)
    await page.click(".json-field:first-of-type summary")
    await page.click(".json-field:first-of-type .act")
    answers(scripted, '{"title": "سلام", "year": 1403}')
    await ask(page, "?")
    await page.wait_for_selector(COMPLETE)
    assert await page.locator(".turn.answer pre code").inner_text() == '{\n  "title": "سلام",\n  "year": 1403\n}'
    assert "valid JSON" in await page.locator(".turn.answer").inner_text()
    answers(scripted, '{"title": "سل')
    await ask(page, "?")
    await expect(page.locator(COMPLETE)).to_have_count(2)
    assert "incomplete or invalid JSON" in await page.locator(".turn.answer").last.inner_text()


async def test_a_wait_has_a_clock_and_says_how_much_the_model_reads(scripted: Scripted, open_page: OpenPage) -> None:
    page = await opened(await open_page(scripted.url + "/en#playground"), scripted)
    begin = asyncio.Event()
    scripted.worker.script = [begin, [started()], [content("yes"), finish(), usage()]]
    await ask(page, "?")
    state = page.locator(".turn.answer .state")
    await expect(state).to_contain_text("The model is reading 3 tokens", timeout=15_000)
    assert "s" in await state.locator(".clock").inner_text()
    begin.set()
    await page.wait_for_selector(COMPLETE)


async def test_escape_stops_an_answer(scripted: Scripted, open_page: OpenPage) -> None:
    page = await opened(await open_page(scripted.url + "/en#playground"), scripted)
    scripted.worker.script = [[started()], [content("a part")], asyncio.Event()]
    await ask(page, "?")
    await page.wait_for_selector(".turn.answer > .markdown")
    await page.keyboard.press("Escape")
    await page.wait_for_selector('.turn.answer[data-status="stopped"]')


async def test_the_search_finds_the_reference_from_the_documentation(scripted: Scripted, open_page: OpenPage) -> None:
    page = await open_page(scripted.url + "/en")
    await page.keyboard.press("/")
    await page.keyboard.type("encoding_format")
    result = page.locator("#search-results li").first
    await result.wait_for()
    await page.locator("#search-results li", has_text="encoding_format").last.click()
    await page.wait_for_url("**/api/docs.en#*")
