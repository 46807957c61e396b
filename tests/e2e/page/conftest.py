"""A real Chromium with the page of a stack with a reasoning model, or of a gateway whose worker is scripted."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, Request, Route, async_playwright
from redis.asyncio import Redis

from services.gateway.tenancy import keys
from services.stack.ports import free_ports
from tests.e2e.stack import RunningStack, up
from tests.support.gateway import running_gateway, until_ready
from tests.support.repository import ROOT
from tests.support.scripted_worker import ScriptedWorker, scripted_worker
from tests.support.system_packages import require
from tests.support.valkey import running_valkey

SCREENS = ROOT / ".run/screens"
SITE = ROOT / "services/gateway/site"
DESKTOP = (1440, 900)
PHONE = (390, 844)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@dataclass
class Problems:
    """The problems of a page that the browser reports."""

    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    """URLs of other origins that the page requested. They are blocked."""


class OpenPage(Protocol):
    """Opens a URL in a new browser context. `api` is another origin that the page may request."""

    async def __call__(
        self,
        url: str,
        *,
        scheme: str = "light",
        size: tuple[int, int] = DESKTOP,
        expected_errors: tuple[str, ...] = (),
        api: str = "",
    ) -> Page: ...


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    executable = require("chromium", package="chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture
async def open_page(browser: Browser) -> AsyncIterator[OpenPage]:
    """Yield a function that opens pages. At the end, check that they had no errors and requested no other origin."""
    contexts: list[Any] = []
    opened: list[tuple[Problems, tuple[str, ...]]] = []

    async def opener(
        url: str,
        *,
        scheme: Any = "light",
        size: tuple[int, int] = DESKTOP,
        expected_errors: tuple[str, ...] = (),
        api: str = "",
    ) -> Page:
        context = await browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, reduced_motion="reduce"
        )
        await context.grant_permissions(["clipboard-read", "clipboard-write"])
        contexts.append(context)
        page = await context.new_page()
        page.set_default_timeout(20_000)
        problems = Problems()
        opened.append((problems, expected_errors))
        page.on("console", lambda message: problems.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.errors.append(str(error)))
        origins = {urlsplit(url).netloc, urlsplit(api).netloc, ""}

        async def guard(route: Route, request: Request) -> None:
            if urlsplit(request.url).netloc in origins:
                await route.continue_()
            else:
                problems.elsewhere.append(request.url)
                await route.abort()

        await page.route("**/*", guard)
        await page.goto(url)
        return page

    yield opener
    for context in contexts:
        await context.close()
    for problems, expected in opened:
        assert problems.elsewhere == []
        assert [error for error in problems.errors if not any(part in error for part in expected)] == []


@pytest.fixture(scope="session")
def reasoning_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with up(tmp_path_factory.mktemp("reasoning"), "--demo-thinking") as running:
        yield running


@pytest.fixture(scope="session")
def site(reasoning_stack: RunningStack) -> str:
    """Return the URL of the page of a stack with a reasoning model."""
    return reasoning_stack.url.removesuffix("/api")


@dataclass(frozen=True)
class Scripted:
    """A gateway with a scripted worker."""

    url: str
    api_key: str
    worker: ScriptedWorker
    process: subprocess.Popen[bytes]
    """The gateway's process."""
    redis_url: str


@asynccontextmanager
async def _scripted(directory: Path, worker: ScriptedWorker, **settings: str) -> AsyncIterator[Scripted]:
    with (
        running_valkey(directory) as redis_url,
        running_gateway(
            redis_url, worker.address, directory / "gateway.log", VILIX_MAX_BODY_BYTES="10000000", **settings
        ) as (url, process),
    ):
        async with Redis.from_url(redis_url, decode_responses=True) as redis:
            _, api_key = await keys.create(redis, name="page")
        await until_ready(url)
        yield Scripted(url, api_key, worker, process, redis_url)


@pytest.fixture
async def scripted(tmp_path: Path) -> AsyncIterator[Scripted]:
    async with scripted_worker(free_ports(1)[0]) as worker:
        worker.capabilities.vision = True
        worker.capabilities.max_images = 4
        worker.capabilities.structured_output = True
        async with _scripted(tmp_path, worker) as gateway:
            yield gateway


async def enter_key(page: Page, api_key: str) -> None:
    """Enter a key into the playground, and wait until the server has accepted it."""
    box = page.locator("#welcome-key, #talk-key")
    await box.fill(api_key)
    await box.press("Enter")
    await page.wait_for_selector(".panel .note.good", state="attached")


async def ask(page: Page, text: str) -> None:
    """Send a message."""
    await page.fill(".composer textarea", text)
    await page.press(".composer textarea", "Enter")


async def screenshot(page: Page, name: str, *, full: bool = False) -> None:
    """Save a screenshot of the page for review."""
    SCREENS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=SCREENS / f"{name}.png", full_page=full)


async def violations(page: Page) -> list[str]:
    """Return the violations of WCAG 2.2 AA and best practices that axe reports."""
    await page.evaluate((SITE / "node_modules/axe-core/axe.min.js").read_text())
    report = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{violation['id']}: {node['target']} {node.get('failureSummary', '')}"
        for violation in report["violations"]
        for node in violation["nodes"]
    ]
