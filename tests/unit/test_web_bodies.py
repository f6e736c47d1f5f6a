"""What a server sends, against a real one: what is bounded in time and size, what is unpacked, what is text."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.tools.web.rules import FetchRules
from orchestrator.tools.web.safe_fetch import fetch, is_text
from tests.unit.web_fetching import HERE, got, run
from tests.unit.web_server import answer


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    while True:
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.01)


async def drip_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.01)


async def say_nothing(writer: asyncio.StreamWriter) -> None:
    await writer.drain()
    await asyncio.Event().wait()


@pytest.mark.parametrize("told", [drip, drip_head, say_nothing])
def test_a_server_that_takes_its_time_is_given_up(told: Any) -> None:
    with pytest.raises(TimeoutError, match=r"did not answer in full within 0.3 s"):
        run(got(told, replace(HERE, seconds=0.3)))


def test_redirects_and_names_count_against_the_same_time() -> None:
    async def slow(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(TimeoutError, match=r"within 0\.1 s"):
        run(fetch("http://slow.test/", FetchRules(seconds=0.1, resolve=slow)))


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


def test_a_long_body_is_cut() -> None:
    page = run(got(endless, replace(HERE, max_bytes=100_000)))
    assert page.is_cut
    assert page.body == b"x" * 100_000
    exact = run(got(answer(b"x" * 100_000), replace(HERE, max_bytes=100_000)))
    assert not exact.is_cut


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_a_bomb_is_cut_where_it_would_grow(packing: str) -> None:
    pack = zlib.compressobj(9, wbits=31 if packing == "gzip" else 15)
    bomb = b"".join(pack.compress(bytes(1 << 20)) for _ in range(200)) + pack.flush()
    assert len(bomb) < 300_000
    page = run(got(answer(bomb, content_encoding=packing), replace(HERE, max_bytes=3 << 20)))
    assert page.is_cut
    assert len(page.body) == 3 << 20


def test_packed_pages_are_unpacked() -> None:
    assert run(got(answer(gzip.compress(b"hello"), content_encoding="gzip"))).text == "hello"
    assert run(got(answer(b"hello", content_encoding="identity"))).text == "hello"


@pytest.mark.parametrize("packing", ["gzip, gzip", "br", "zstd", "gzip, br", "x-gzip"])
def test_packing_that_was_not_asked_for_is_refused(packing: str) -> None:
    with pytest.raises(OSError, match="is packed in a way that was not asked for"):
        run(got(answer(b"hello", content_encoding=packing)))


@pytest.mark.parametrize(
    "told",
    [
        b"hello\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Type: text/plain\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
        answer(b"no gzip", content_encoding="gzip"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/plain\r\n\r\nxyz\r\n",
    ],
)
def test_what_is_no_http_is_said_to_be_broken(told: bytes) -> None:
    with pytest.raises(ConnectionError, match="broke off"):
        run(got(told))


@pytest.mark.parametrize(
    ("status", "message"),
    [(404, "HTTP 404 Not Found"), (500, "HTTP 500 Internal Server Error"), (599, "HTTP 599$"), (304, "HTTP 304")],
)
def test_a_status_that_is_no_success_is_said(status: int, message: str) -> None:
    with pytest.raises(OSError, match=message):
        run(got(answer(b"", status)))


@pytest.mark.parametrize(
    ("content_type", "taken"),
    [
        *(("text/html", True), ("text/plain", True), ("text/vnd.x+y", True), ("application/json", True)),
        *(("application/ld+json", True), ("application/xhtml+xml", True), ("application/xml", True)),
        *(("application/pdf", False), ("image/png", False), ("application/octet-stream", False), ("", False)),
        *(("text/", False), ("text/html\n", False), ("jsonx", False)),
    ],
)
def test_what_is_text(content_type: str, taken: bool) -> None:
    assert is_text(content_type) is taken


def test_what_is_no_text_is_not_read() -> None:
    with pytest.raises(OSError, match="is of type 'application/pdf', which cannot be shown here"):
        run(got(answer(b"%PDF", content_type="application/pdf")))
    assert run(got(answer(b"plain", content_type=""))).content_type == "text/plain"


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("text/html; charset=iso-8859-1", b"h\xe4llo", "hällo"),
        ("text/html", b"<meta charset='windows-1251'>\xc4\xe0", "<meta charset='windows-1251'>Да"),
        (
            "text/html",
            b'<meta content="text/html; charset=shift_jis">\x82\xa0',
            '<meta content="text/html; charset=shift_jis">あ',
        ),
        ("text/plain", b"<meta charset=latin1>\xc3\xa4", "<meta charset=latin1>ä"),
        ("text/html; charset=idna", b"xn--", "xn--"),
        ("text/html; charset=rot13", b"abc", "abc"),
        ("text/html; charset=../../x", b"abc", "abc"),
        ("text/html; charset=iso-8859-12", b"abc", "abc"),
        ("text/html; charset=utf-8", b"a\xff", "a\ufffd"),
    ],
)
def test_the_encoding_is_what_the_page_says_if_it_is_one_of_pages(content_type: str, body: bytes, text: str) -> None:
    assert run(got(answer(body, content_type=content_type))).text == text
