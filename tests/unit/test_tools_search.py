"""Searching the web and Wikipedia: the services' answers from a real server, DuckDuckGo through the real library."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from ddgs.engines import ENGINES

from orchestrator.errors import ConfigError
from orchestrator.pace import Pace
from orchestrator.tools import (
    ApiWebSearchTool,
    DuckDuckGoSearchTool,
    GoogleSearchTool,
    WebSearchTool,
    WikipediaSearchTool,
)
from orchestrator.tools.web import json_api
from tests.unit.web_server import answer, serving

KEY = "key-0123456789abcdef"


def run(test: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(60):
            return await test

    return asyncio.run(bounded())


BRAVE_ANSWER = {
    "web": {
        "results": [
            {"title": "One\x1b[2J", "url": "https://one.test/", "description": "the <strong>first</strong>\nline"},
            {"title": "Two", "url": "https://two.test/"},
            "junk",
            {"title": 3, "url": None, "description": ["x"]},
        ]
    }
}


def test_brave_is_asked_with_its_key() -> None:
    async def test() -> None:
        async with serving({"/s": answer(json.dumps(BRAVE_ANSWER), content_type="application/json")}) as server:
            search = ApiWebSearchTool(endpoint=server.url("/s"), api_key=KEY, params={"country": "no"}, max_results=2)
            assert await search("fjords & trolls") == (
                "## Search Results\n\n[One](https://one.test/)\nthe first line\n\n[Two](https://two.test/)"
            )
            (request,) = server.requests
            assert request.target == "/s?count=2&country=no&q=fjords+%26+trolls"
            assert request.headers["x-subscription-token"] == KEY

    run(test())


def test_serper_is_asked_with_its_key_and_a_year() -> None:
    rows = [{"title": "One", "link": "https://one.test/", "snippet": "first", "date": "May 2"}]
    told = answer(json.dumps({"organic": rows}), content_type="application/json")

    async def test() -> None:
        async with serving({"/s": told}) as server:
            search = GoogleSearchTool("serper", api_key=KEY, endpoint=server.url("/s"), max_results=3)
            assert await search("x", 2024) == "## Search Results\n\n[One](https://one.test/)\nMay 2: first"
            await search("y")
            first, second = server.requests
            assert first.method == "POST"
            assert first.headers["x-api-key"] == KEY
            assert json.loads(first.body) == {"num": 3, "tbs": "cdr:1,cd_min:01/01/2024,cd_max:12/31/2024", "q": "x"}
            assert json.loads(second.body) == {"num": 3, "q": "y"}

    run(test())


def test_serpapi_is_asked_with_its_key() -> None:
    told = answer(json.dumps({"organic_results": [{"title": "One", "link": "https://one.test/"}]}))

    async def test() -> None:
        async with serving({"/s": told}) as server:
            search = GoogleSearchTool(api_key=KEY, endpoint=server.url("/s"))
            assert await search(query="x") == "## Search Results\n\n[One](https://one.test/)"
            assert server.requests[0].target == f"/s?engine=google&num=10&q=x&api_key={KEY}"

    run(test())


@pytest.mark.parametrize(
    "body", ["{}", '{"organic_results": 3}', '{"organic_results": []}', '{"organic_results": [1]}']
)
def test_nothing_found_is_said(body: str) -> None:
    async def test() -> None:
        async with serving({"/s": answer(body)}) as server:
            search = GoogleSearchTool(api_key=KEY, endpoint=server.url("/s"))
            assert await search("a\nb") == "No results for 'a b'. Try fewer or other words."

    run(test())


@pytest.mark.parametrize(
    ("told", "kind", "message"),
    [
        (answer(KEY, 401), PermissionError, r"SerpApi takes no request with this key \(HTTP 401\)"),
        (answer(KEY, 403), PermissionError, "takes no request"),
        (answer(KEY, 429), OSError, "SerpApi answered with HTTP 429"),
        (answer(KEY, 302, location="http://127.0.0.1:1/"), OSError, "HTTP 302"),
        (answer(f'["{KEY}"]'), ConnectionError, "is no JSON object"),
        (answer("<html>"), ConnectionError, "is no JSON object"),
        (answer("[" * 100_000), ConnectionError, "is no JSON object"),
        (b"nonsense", ConnectionError, "SerpApi cannot be reached"),
        (answer(b" " * (json_api.MAX_BYTES + 1)), ConnectionError, "sent more than"),
    ],
)
def test_a_service_that_fails_is_said_and_its_key_is_not(told: bytes, kind: type, message: str) -> None:
    async def test() -> None:
        async with serving({"/s": told}) as server:
            search = GoogleSearchTool(api_key=KEY, endpoint=server.url("/s"))
            with pytest.raises(kind, match=message) as caught:
                await search("x")
            assert KEY not in str(caught.value)
            assert caught.value.__context__ is None or caught.value.__suppress_context__  # which holds the request

    run(test())


def test_a_service_that_takes_its_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def test() -> None:
        async with serving({"/s": nothing}) as server:
            with pytest.raises(TimeoutError, match=r"SerpApi did not answer within 0\.1 s"):
                await GoogleSearchTool(api_key=KEY, endpoint=server.url("/s"))("x")

    monkeypatch.setattr(json_api, "SECONDS", 0.1)
    run(test())


def test_keys_come_from_the_environment_and_are_in_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    makers = {
        "BRAVE_API_KEY": lambda: WebSearchTool(engine="brave_api"),
        "MY_KEY": lambda: ApiWebSearchTool(api_key_name="MY_KEY"),
        "SERPER_API_KEY": lambda: GoogleSearchTool("serper"),
        "SERPAPI_API_KEY": lambda: GoogleSearchTool("serpapi"),
    }
    for variable in makers:
        monkeypatch.delenv(variable, raising=False)
    for variable, make in makers.items():
        with pytest.raises(ConfigError, match=variable):
            make()
        monkeypatch.setenv(variable, KEY)
        made = make()
        assert made.name == "web_search"
        assert KEY not in repr(made)
        assert KEY not in repr(vars(made)["_engine"])


def test_what_is_no_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match="provider is 'bing'"):
        GoogleSearchTool("bing", api_key=KEY)
    with pytest.raises(ConfigError, match="max_results is 0"):
        ApiWebSearchTool(api_key=KEY, max_results=0)
    with pytest.raises(ConfigError, match="rate_limit is 0"):
        ApiWebSearchTool(api_key=KEY, rate_limit=0)


def test_requests_keep_their_distance() -> None:
    async def test() -> None:
        pace = Pace(20.0, 1.0)
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.gather(*(pace.turn() for _ in range(4)))
        assert loop.time() - before >= 0.149
        free = Pace(None)
        await asyncio.wait_for(asyncio.gather(*(free.turn() for _ in range(1000))), 5)

    run(test())


# Without a key: the real library reads the page of a server of ours.

DUCKDUCKGO = """<html><body><div class="links_main result__body"><h2><a href="https://one.test/">First page</a></h2>
<a href="https://one.test/">about x, the <b>first</b></a></div>
<div class="result__body"><h2>Second x</h2><a href="https://two.test/a">more</a></div>
<div class="result__body"><h2>Ad</h2><a href="https://duckduckgo.com/y.js?ad">ad x</a></div></body></html>"""


@contextmanager
def at(engine: type, url: str) -> Iterator[None]:
    """The engine asks there instead of at its own address."""
    own = engine.search_url  # type: ignore[attr-defined]
    engine.search_url = url  # type: ignore[attr-defined]
    try:
        yield
    finally:
        engine.search_url = own  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "make", [lambda: WebSearchTool(1), lambda: DuckDuckGoSearchTool(1, rate_limit=None, timeout=5)]
)
def test_duckduckgo_is_read(make: Any) -> None:
    engines = ENGINES["text"]

    async def test() -> None:
        async with serving({"/s": answer(DUCKDUCKGO)}) as server:
            with at(engines["duckduckgo"], server.url("/s")):
                found = await make()("x")
            assert found.startswith("## Search Results\n\n[")
            assert "(https://one.test/)" in found or "(https://two.test/a)" in found
            assert found.count("](") == 1
            assert b"q=x" in server.requests[0].body

    run(test())


def test_both_results_and_no_advertisement() -> None:
    engines = ENGINES["text"]

    async def test() -> None:
        async with serving({"/s": answer(DUCKDUCKGO)}) as server:
            with at(engines["duckduckgo"], server.url("/s")):
                found = await WebSearchTool()("x")
        assert "[First page](https://one.test/)\nabout x, the first" in found
        assert "[Second x](https://two.test/a)\nmore" in found
        assert "y.js" not in found

    run(test())


def test_an_engine_that_cannot_be_asked_is_said() -> None:
    engines = ENGINES["text"]

    async def test() -> None:
        with (
            at(engines["duckduckgo"], "http://127.0.0.1:1/"),
            pytest.raises(ConnectionError, match="duckduckgo cannot"),
        ):
            await WebSearchTool()("x")
        async with serving({"/s": answer("<html></html>")}) as server:
            with at(engines["duckduckgo"], server.url("/s")):
                assert await WebSearchTool()("x") == "No results for 'x'. Try fewer or other words."

    run(test())


def test_an_engine_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"search engine 'exa' is none of .*brave_api.*duckduckgo"):
        WebSearchTool(engine="exa")


def test_wikipedia_is_asked_for_an_article() -> None:
    page = {"title": "Fjord", "extract": "A fjord is an inlet.", "fullurl": "https://en.wikipedia.org/wiki/Fjord"}
    told = answer(json.dumps({"query": {"pages": [page]}}), content_type="application/json")

    async def test() -> None:
        async with serving({"/w": told}) as server:
            search = WikipediaSearchTool("me (me@a.test)", content_type="summary", endpoint=server.url("/w"))
            assert await search("fjord") == (
                "# Fjord\n\nA fjord is an inlet.\n\nFrom: https://en.wikipedia.org/wiki/Fjord"
            )
            (request,) = server.requests
            assert request.headers["user-agent"] == "me (me@a.test)"
            for part in ("gsrsearch=fjord", "explaintext=1", "exintro=1"):
                assert part in request.target
            await WikipediaSearchTool(extract_format="HTML", endpoint=server.url("/w"))("fjord")
            assert "explaintext" not in server.requests[1].target
            assert "exintro" not in server.requests[1].target

    run(test())


@pytest.mark.parametrize("body", ["{}", '{"query": {"pages": []}}', '{"query": 3}', '{"query": {"pages": [{}]}}'])
def test_an_article_that_is_not_there_is_said(body: str) -> None:
    async def test() -> None:
        async with serving({"/w": answer(body)}) as server:
            found = await WikipediaSearchTool(endpoint=server.url("/w"))("x")
            assert found == "Wikipedia has no article for 'x'. Try other words."

    run(test())


def test_a_long_article_is_cut() -> None:
    page = {"title": "T", "extract": "x" * 50_000, "fullurl": "u"}

    async def test() -> None:
        async with serving({"/w": answer(json.dumps({"query": {"pages": [page]}}))}) as server:
            found = await WikipediaSearchTool(endpoint=server.url("/w"))("x")
            assert found.count("x") == 40_000
            assert "(The article is longer" in found

    run(test())


@pytest.mark.parametrize(
    "settings", [{"language": "en.evil.test/"}, {"language": ""}, {"content_type": "all"}, {"extract_format": "PDF"}]
)
def test_a_wikipedia_that_is_none_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"language is|content_type must be"):
        WikipediaSearchTool(**settings)
