"""``visit_webpage``: pages of a real server, converted in a real process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ConfigError
from orchestrator.tools import VisitWebpageTool
from orchestrator.tools.web.markdown import to_markdown
from orchestrator.tools.web.rules import FetchRules
from tests.unit.web_server import answer, serving


def run(test: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(60):
            return await test

    return asyncio.run(bounded())


PAGE = """<html><head><title>T</title><script>evil()</script><style>a{}</style></head><body><h1>Hi</h1>
<p>x <a href='/rel'>rel</a> &amp; <b>bold</b></p><table><tr><th>a<th>b<tr><td>1<td>2</table>
<img src='data:image/png;base64,AAAA' alt='dot'></body></html>"""
HERE = FetchRules(allowed_hosts=frozenset({"127.0.0.1"}))


def test_a_page_is_read_as_markdown() -> None:
    async def test() -> None:
        async with serving(
            {"/": answer(PAGE), "/j": answer('{"a": "<b>"}', content_type="application/json")}
        ) as server:
            visit = VisitWebpageTool(allowed_hosts=["127.0.0.1"])
            page = await visit(server.url())
            for part in ("# Hi", f"x [rel]({server.url('/rel')}) & **bold**", "| a | b |", "dot"):
                assert part in page
            for part in ("evil", "a{}", "base64"):
                assert part not in page
            assert await visit({"url": server.url("/j")}) == '{"a": "<b>"}'

    run(test())


@pytest.mark.parametrize("content_type", ["text/html", "text/plain"])
def test_a_long_page_is_cut_and_says_so(content_type: str) -> None:
    async def test() -> None:
        async with serving({"/": answer("word " * 1000, content_type=content_type)}) as server:
            told = "\n\n(The page is longer; this is its beginning, 100 characters.)"
            assert await VisitWebpageTool(100, rules=HERE)(server.url()) == "word " * 20 + told
            cut = VisitWebpageTool(rules=replace(HERE, max_bytes=50))
            assert "(The page is longer" in await cut(server.url())
            assert "(The page is longer" not in await VisitWebpageTool(rules=HERE)(server.url())

    run(test())


def test_a_page_of_this_machine_is_not_read_unless_that_is_allowed() -> None:
    async def test() -> None:
        async with serving({"/": answer(PAGE)}) as server:
            with pytest.raises(PermissionError, match="port"):
                await VisitWebpageTool()(server.url())
            with pytest.raises(PermissionError, match="port"):
                await VisitWebpageTool(allow_private_addresses=True)(server.url())
            assert server.connections == 0
        with pytest.raises(PermissionError, match="no public address"):
            await VisitWebpageTool()("http://127.0.0.1/")

    run(test())


def test_a_page_that_would_fill_the_memory_ends_in_its_own_process() -> None:
    started = time.monotonic()
    with pytest.raises(OSError, match="cannot be turned into text"):
        run(to_markdown("<blockquote>" * 90 + "x<br>" * 500_000, "http://x.test/", 1000))
    assert time.monotonic() - started < 30


def test_odd_pages_are_read() -> None:
    assert run(to_markdown("", "http://x.test/", 10)) == ("", False)
    assert run(to_markdown("<div>" * 100_000 + "x", "http://x.test/", 10))[1] is False
    assert run(to_markdown("ä\ud800", "http://x.test/", 10)) == ("ä?", False)
    assert run(to_markdown("<p>" + "ab" * 10, "http://x.test/", 4)) == ("abab", True)


def test_a_cancelled_conversion_leaves_no_process() -> None:
    async def test() -> None:
        before = children()
        task = asyncio.create_task(to_markdown("<blockquote>" * 90 + "x<br>" * 300_000, "http://x.test/", 10))
        while not (mine := children() - before):
            assert not task.done()
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not mine & children()

    def children() -> set[str]:
        found = " ".join(file.read_text() for file in Path("/proc/self/task").glob("*/children"))
        return set(found.split())

    run(test())


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_output_length is 0"):
        VisitWebpageTool(0)


def test_the_converter_has_no_keys_in_its_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "html_to_markdown.py").write_text(
        "import os\nfrom types import SimpleNamespace\nConversionOptions = dict\n"
        "convert = lambda html, options: SimpleNamespace(content=str(sorted(os.environ)))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("OPENAI_API_KEY", "key-0123456789")
    shown, _ = run(to_markdown("", "http://x.test/", 1000))
    assert "'PYTHONPATH'" in shown
    assert "KEY" not in shown


def test_hosts_are_a_list() -> None:
    with pytest.raises(ConfigError, match="allowed_hosts is a list of names, also for a single one, not 'intranet'"):
        VisitWebpageTool(allowed_hosts="intranet")
