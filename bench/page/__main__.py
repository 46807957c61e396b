"""Measure in a real Chromium how fast the page paints and how smoothly it shows a fast stream: `python -m bench.page`.

It starts what it needs, prints a Markdown table, and stops it. The page must have been built (make site).

Examples:
  python -m bench.page
  python -m bench.page --browser /usr/bin/chromium --json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, async_playwright
from rich.console import Console

from bench.gateway.system import PAGES, ROOT, System, running
from bench.ratios import summary, table
from services.stack.display import Display
from services.stack.ports import LOOPBACK

DIST = ROOT / "services" / "gateway" / "site" / "dist"
ROUNDS = 5
_WATCH_FRAMES = """() => {
  window.frames_ms = [];
  let before = performance.now();
  const look = (now) => { window.frames_ms.push(now - before); before = now; requestAnimationFrame(look); };
  requestAnimationFrame(look);
}"""
_FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"


async def first_paint_ms(browser: Browser, url: str) -> float:
    """Measure the time from the navigation to the first content, in a browser without a cache."""
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(url, wait_until="load")
    # The page's Content-Security-Policy forbids `wait_for_function`.
    while not (milliseconds := float(await page.evaluate(_FIRST_PAINT))):  # noqa: ASYNC110  # the browser has the state
        await asyncio.sleep(0.05)
    await context.close()
    return milliseconds


async def frames_ms(browser: Browser, url: str, api_key: str) -> list[float]:
    """Measure the duration of each frame while a stream of 300 tokens per second is displayed."""
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(f"{url}#playground")
    await page.fill("#welcome-key", api_key)
    await page.press("#welcome-key", "Enter")
    await page.fill(".composer textarea", PAGES)
    await page.press(".composer textarea", "Enter")
    await page.wait_for_selector(".answer .markdown")
    await page.evaluate(_WATCH_FRAMES)
    await page.wait_for_selector('.turn.answer[data-status="complete"]', timeout=120_000)
    frames = [float(frame) for frame in await page.evaluate("window.frames_ms")]
    await context.close()
    return frames


async def measure(browser_path: str) -> dict[str, Any]:
    """Run all measurements and return them by name."""
    with tempfile.TemporaryDirectory(prefix="vilix-bench-") as directory:
        async with (
            running(Path(directory), Display(Console(stderr=True)), litellm=False) as system,
            async_playwright() as playwright,
        ):
            browser = await playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
            results = await _measure(browser, system)
            await browser.close()
            return results


async def _measure(browser: Browser, system: System) -> dict[str, Any]:
    url = f"http://{LOOPBACK}:{system.gateway_port}/"
    await first_paint_ms(browser, url)
    paints = [await first_paint_ms(browser, url) for _ in range(ROUNDS)]
    rounds = [await frames_ms(browser, url, system.api_key) for _ in range(ROUNDS)]
    return {"kilobytes": _kilobytes(), "first_paint_ms": paints, "frames_ms": rounds}


def _kilobytes() -> float:
    """Return the compressed size of all files of a first visit except fonts."""
    files = [*(DIST / "site").rglob("*.br"), DIST / "index.html.br"]
    return sum(file.stat().st_size for file in files if "licences" not in file.name) / 1000


def report(results: dict[str, Any]) -> str:
    """Format the results as a table."""
    frames = [frame for one in results["frames_ms"] for frame in one]
    longest = [max(one) for one in results["frames_ms"]]
    p99 = statistics.quantiles(frames, n=100)[98]
    rows = [
        ["Page, compressed, without fonts", "under 250 kB", f"{results['kilobytes']:.0f} kB"],
        ["First paint on loopback, ms", "under 1,000", summary(results["first_paint_ms"], digits=0)],
        ["Longest frame at 300 tokens/s, ms", "under 50", summary(longest, digits=0)],
        ["Frames at 300 tokens/s, ms", "", f"p50 {statistics.median(frames):.0f}, p99 {p99:.0f}"],
    ]
    return table(["", "target", "measured"], rows)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--browser", default=shutil.which("chromium"), help="path of Chromium")
    parser.add_argument("--json", action="store_true", help="print all measurements as JSON")
    options = parser.parse_args()
    if not options.browser:
        sys.exit("error: Chromium is missing; run: make system-deps")
    if not (DIST / "index.html").exists():
        sys.exit("error: the page was not built; run: make site")
    results = asyncio.run(measure(options.browser))
    print(json.dumps(results, indent=2) if options.json else report(results))


if __name__ == "__main__":
    main()
