"""The gateway serves the page, whatever its content."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from services.gateway.settings import GatewaySettings
from services.stack.ports import free_ports
from tests.support.gateway import running_gateway, until_answered

HTML = '<!doctype html><meta name="vilix-api" content="./api"><title>ویلیکس</title>'


@pytest.fixture
def built(tmp_path: Path) -> Path:
    directory = tmp_path / "dist"
    (directory / "site/assets").mkdir(parents=True)
    (directory / "index.html").write_text(HTML)
    (directory / "index.html.gz").write_bytes(b"not the page, but what is sent for it")
    (directory / "site/assets/page-1234.js").write_text("export {};")
    return directory


async def responses(redis_url: str, tmp_path: Path, *paths: str, **settings: str) -> list[httpx.Response]:
    """Return the response at each path of a gateway with these settings and no worker."""
    unused = f"127.0.0.1:{free_ports(1)[0]}"
    with running_gateway(redis_url, unused, tmp_path / "gateway.log", **settings) as (url, _):
        async with httpx.AsyncClient(base_url=url, headers={"accept-encoding": "identity"}) as client:
            await until_answered(url)
            return [await client.get(path) for path in paths]


async def test_the_page_is_served_with_its_policy_and_without_a_key(
    redis_url: str, built: Path, tmp_path: Path
) -> None:
    page, script, missing = await responses(
        redis_url, tmp_path, "/", "/site/assets/page-1234.js", "/en", VILIX_SITE_DIRECTORY=str(built)
    )
    assert page.text == HTML
    assert "connect-src 'self';" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["vary"] == "accept-encoding"
    assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert missing.status_code == 404


async def test_the_page_calls_an_api_at_another_host(redis_url: str, built: Path, tmp_path: Path) -> None:
    (page,) = await responses(
        redis_url,
        tmp_path,
        "/",
        VILIX_SITE_DIRECTORY=str(built),
        VILIX_PUBLIC_API_URL="https://ai.example.com/v1?a&b",
    )
    assert '<meta name="vilix-api" content="https://ai.example.com/v1?a&amp;b">' in page.text
    assert "connect-src 'self' https://ai.example.com;" in page.headers["content-security-policy"]


async def test_a_gateway_without_a_built_page_still_serves_the_api(redis_url: str, tmp_path: Path) -> None:
    page, models = await responses(
        redis_url, tmp_path, "/", "/site/models.json", VILIX_SITE_DIRECTORY=str(tmp_path / "none")
    )
    assert page.status_code == 404
    assert page.json()["error"]["type"] == "invalid_request_error"
    assert [model["available"] for model in models.json()["models"]] == [False, False]
    assert "make site" in (tmp_path / "gateway.log").read_text()


@pytest.mark.parametrize("name", ["index.html", "en.html"])
def test_a_first_visit_downloads_little(name: str) -> None:
    dist = GatewaySettings().site_directory
    if not dist.exists():
        pytest.skip("the page is not built; make test builds it")
    html = (dist / name).read_text()
    named = {dist / path for path in re.findall(r'(?:src|href)="\./(site/[^"]+\.(?:css|js|svg|woff2))"', html)}
    styles = [path for path in named if path.suffix == ".css"]
    fonts = {path.parent / font for path in styles for font in re.findall(r"([\w-]+\.woff2)", path.read_text())}
    # Letters such as ğ are not on the page.
    files = {dist / name} | named | {path for path in fonts if "latin-ext" not in path.name}
    assert len(files) >= 7
    sizes = {path.name: _transferred(path) for path in files}
    # The rest is for headers and the list of models.
    assert sum(sizes.values()) < 144_000, sizes


def _transferred(path: Path) -> int:
    """Return the size of a file as browsers get it."""
    compressed = path.with_name(path.name + ".br")
    return (compressed if compressed.exists() else path).stat().st_size


async def test_addresses_that_people_try_lead_to_the_page(redis_url: str, built: Path, tmp_path: Path) -> None:
    tried = {"/en/": "/en", "/fa": "/", "/fa/": "/", "/docs": "/", "/playground": "/#playground", "/index.html": "/"}
    tried["/favicon.ico"] = "/site/mark.svg"
    for response in await responses(redis_url, tmp_path, *tried, VILIX_SITE_DIRECTORY=str(built)):
        assert response.status_code == 308
        path = response.request.url.path
        # Relative, because a proxy may serve the page under another path.
        assert not response.headers["location"].startswith(("/", "http"))
        assert str(response.request.url.join(response.headers["location"])).endswith(tried[path]), path


async def test_a_browser_gets_a_page_for_an_address_that_does_not_exist(
    redis_url: str, built: Path, tmp_path: Path
) -> None:
    for name, text in (("missing.html", "نیست"), ("missing.en.html", "missing")):
        (built / name).write_text(f'<!doctype html><a href="./">{text}</a><script src="./site/a.js"></script>')
    unused = f"127.0.0.1:{free_ports(1)[0]}"
    browser = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8", "accept-language": "fa-IR,fa;q=0.9,en;q=0.5"}
    with running_gateway(redis_url, unused, tmp_path / "gateway.log", VILIX_SITE_DIRECTORY=str(built)) as (url, _):
        async with httpx.AsyncClient(base_url=url) as client:
            await until_answered(url)
            persian = await client.get("/no/such/page", headers=browser)
            english = await client.get("/nothing", headers={**browser, "accept-language": "de"})
            program = await client.get("/no/such/page", headers={"accept": "application/json"})
            call = await client.post("/no/such/page", headers=browser)
    assert persian.status_code == english.status_code == program.status_code == call.status_code == 404
    assert persian.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in persian.headers["content-security-policy"]
    # Relative, because a proxy may serve the page under another path.
    assert persian.text == '<!doctype html><a href="../../">نیست</a><script src="../../site/a.js"></script>'
    assert english.text == '<!doctype html><a href="./">missing</a><script src="./site/a.js"></script>'
    assert program.json()["error"]["code"] == call.json()["error"]["code"] == "unknown_url"


async def test_the_pages_are_also_served_as_markdown(redis_url: str, built: Path, tmp_path: Path) -> None:
    (built / "en.md").write_text("# Vilix")
    (built / "llms.txt").write_text("# Vilix")
    page, index = await responses(redis_url, tmp_path, "/en.md", "/llms.txt", VILIX_SITE_DIRECTORY=str(built))
    assert (page.text, page.headers["content-type"]) == ("# Vilix", "text/markdown; charset=utf-8")
    assert index.headers["content-type"] == "text/plain; charset=utf-8"
