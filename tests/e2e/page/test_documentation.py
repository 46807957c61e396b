"""The documentation page in a browser."""

from __future__ import annotations

import httpx
import pytest
from playwright.async_api import Page

from tests.e2e.page.conftest import DESKTOP, PHONE, OpenPage, screenshot, violations
from tests.e2e.stack import RunningStack

PATHS = {"fa": "/", "en": "/en"}
SECTIONS = [
    "start", "models", "authentication", "endpoints", "chat", "streaming", "reasoning", "images", "tools", "editors",
    "codex", "structured", "embeddings", "limits", "errors", "claude-code", "proxies", "grpc",
]  # fmt: skip


async def filled(page: Page) -> None:
    await page.wait_for_selector("html[data-filled]", state="attached")
    await page.evaluate("document.fonts.ready")


@pytest.mark.parametrize("language", ["fa", "en"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_the_documentation_is_readable(
    site: str, open_page: OpenPage, language: str, scheme: str, size: tuple[int, int]
) -> None:
    page = await open_page(site + PATHS[language], scheme=scheme, size=size)
    await filled(page)
    assert await page.eval_on_selector_all(".prose h2", "all => all.map(h => h.id)") == SECTIONS
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    assert await page.evaluate("document.fonts.check('16px Vazirmatn', 'سلام')")
    assert await violations(page) == []
    name = f"documentation-{language}-{scheme}-{'phone' if size == PHONE else 'desktop'}"
    await screenshot(page, name)
    await screenshot(page, f"{name}-all", full=True)


async def test_models_are_listed_with_their_capabilities(site: str, open_page: OpenPage) -> None:
    page = await open_page(site + "/en")
    model = page.locator(".model", has_text="replay-thinking")
    await model.wait_for()
    assert await model.locator(".state").inner_text() == "ready"
    assert await model.locator(".checkpoint").inner_text() == ("none; recorded answers in the tokens of Qwen/Qwen3-8B")
    assert {"chat", "reasoning", "tools"} <= set(await model.locator("li").all_inner_texts())


async def test_the_list_of_models_needs_no_key_and_contains_nothing_about_engines(site: str) -> None:
    async with httpx.AsyncClient(base_url=site) as client:
        response = await client.get("/site/models.json")
    assert response.headers["cache-control"] == "public, max-age=10"
    model = next(model for model in response.json()["models"] if model["id"] == "smollm2-135m")
    assert model["available"] is True
    assert model["context_length"] == 2048
    assert model["checkpoint"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert not {"engine", "owned_by"} & set(model)


async def test_examples_are_filled_in_and_copied_as_displayed(
    site: str, reasoning_stack: RunningStack, open_page: OpenPage
) -> None:
    page = await open_page(site + "/")
    await filled(page)
    block = page.locator("#start ~ .examples")
    await block.locator('[role="tab"]', has_text="cURL").click()
    await block.locator("[data-copy]").click()
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(f"curl {reasoning_stack.url}/chat/completions \\\n")
    assert '"model": "replay-thinking"' in copied
    assert await block.locator("[data-copy]").inner_text() == "کپی شد"
    # The choice of a language applies to all examples, also after a reload.
    assert await page.locator("#panel-stream-bash").is_visible()
    await page.reload()
    assert await page.locator("#panel-stream-bash").is_visible()


async def test_arrow_keys_move_between_tabs(site: str, open_page: OpenPage) -> None:
    page = await open_page(site + "/en")
    await page.focus("#tab-stream-python")
    await page.keyboard.press("ArrowRight")
    assert await page.evaluate("document.activeElement.id") == "tab-stream-javascript"
    assert await page.locator("#panel-stream-javascript").is_visible()


async def test_the_table_of_contents_follows_the_scroll_position(site: str, open_page: OpenPage) -> None:
    page = await open_page(site + "/")
    for section in ("streaming", "errors", "grpc"):
        await page.evaluate(f"document.getElementById('{section}').scrollIntoView({{behavior: 'instant'}})")
        await page.wait_for_selector(f'.contents a[href="#{section}"][aria-current]')
    await page.click('.contents a[href="#tools"]')
    await page.wait_for_selector('.contents a[href="#tools"][aria-current]')
    assert page.url.endswith("#tools")


async def test_switching_the_language_keeps_the_section(site: str, open_page: OpenPage) -> None:
    page = await open_page(site + "/#errors")
    await page.click("[data-language-switch]")
    await page.wait_for_url("**/en#errors")
    assert await page.evaluate("document.documentElement.dir") == "ltr"
    await page.click("[data-language-switch]")
    await page.wait_for_url("**/#errors")
    assert await page.evaluate("document.documentElement.dir") == "rtl"


async def test_search_finds_persian_text_with_arabic_letters(site: str, open_page: OpenPage) -> None:
    page = await open_page(site + "/")
    await page.keyboard.press("/")
    await page.keyboard.type("خروجي ساختاريافته")
    assert await page.locator("#search-results li").first.locator("b").inner_text() == "خروجی ساختاریافته"
    await screenshot(page, "search-fa")
    assert await violations(page) == []
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/#structured")
    assert await page.locator("dialog.search").is_hidden()
    await page.keyboard.press("Control+k")
    await page.keyboard.type("نچنانچیزی")
    assert await page.locator("dialog.search [role=status]").is_visible()
    await page.keyboard.press("Escape")
    assert await page.locator("dialog.search").is_hidden()


async def test_the_theme_can_be_chosen_and_is_remembered(site: str, open_page: OpenPage) -> None:
    page = await open_page(site + "/", scheme="light")
    light = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    await page.click("[data-theme-toggle]")
    dark = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert light != dark
    await page.reload()
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


async def test_a_printed_page_contains_every_language_of_an_example(site: str, open_page: OpenPage) -> None:
    page = await open_page(site + "/en")
    await page.emulate_media(media="print")
    for language in ("python", "javascript", "bash"):
        assert await page.locator(f"#panel-stream-{language}").is_visible()
    assert await page.locator(".contents").is_hidden()
    await screenshot(page, "print-en")


@pytest.mark.parametrize("path", ["/api/docs", "/api/docs.en"])
async def test_the_reference_describes_every_operation(site: str, open_page: OpenPage, path: str) -> None:
    page = await open_page(site + path)
    await filled(page)
    for operation in ("createChatCompletion", "createEmbedding", "listModels", "retrieveModel", "getUsage"):
        assert await page.locator(f"#{operation}").is_visible()
    assert f"POST {site}/api/chat/completions" in await page.locator(".operation").first.inner_text()
    assert await violations(page) == []
    await screenshot(page, f"reference-{'en' if path.endswith('en') else 'fa'}")


async def test_files_are_cached_by_their_content(site: str) -> None:
    async with httpx.AsyncClient(base_url=site) as client:
        page = await client.get("/", headers={"accept-encoding": "br"})
        assert page.headers["content-encoding"] == "br"
        assert page.headers["cache-control"] == "no-cache"
        again = await client.get("/", headers={"if-none-match": page.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        plain = await client.get("/", headers={"accept-encoding": "identity"})
        script = plain.text.split('<script type="module"', 1)[1].split('src="./', 1)[1].split('"', 1)[0]
        asset = await client.get(f"/{script}")
        assert "immutable" in asset.headers["cache-control"]
        assert asset.headers["content-type"] == "text/javascript; charset=utf-8"
        missing = await client.get("/site/assets/none.js")
        assert missing.status_code == 404
        assert missing.json()["error"]["type"] == "invalid_request_error"


async def test_the_content_security_policy_forbids_inline_code_and_other_origins(site: str) -> None:
    async with httpx.AsyncClient(base_url=site) as client:
        for path in ("/", "/en", "/api/docs", "/api/docs.en"):
            response = await client.get(path)
            policy = response.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert "http" not in policy
            assert response.headers["x-content-type-options"] == "nosniff"


async def test_a_page_can_be_copied_as_markdown_with_this_sites_url(
    site: str, reasoning_stack: RunningStack, open_page: OpenPage
) -> None:
    page = await open_page(site + "/en")
    await filled(page)
    await page.click("[data-copy-page]")
    await page.wait_for_selector("[data-copy-page].done")
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert f'base_url="{reasoning_stack.url}"' in copied
    assert "## Errors" in copied
