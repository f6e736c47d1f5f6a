"""Fetching what code chose, against a real server: where it may go, and what is refused."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from orchestrator.tools.web.rules import FetchRules, system_resolve
from orchestrator.tools.web.safe_fetch import MAX_REDIRECTS, Fetched, fetch
from tests.unit.web_fetching import HERE, got, run
from tests.unit.web_names import besides_system, resolving
from tests.unit.web_server import Server, answer, redirect, serving


def test_a_page_arrives() -> None:
    async def test() -> None:
        async with serving({"/a": answer("hällo", content_type="Text/HTML; charset=UTF-8")}) as server:
            page = await fetch(server.url("/a?b=c d#e"), HERE)
            assert page == Fetched(server.url("/a?b=c%20d#e"), "text/html", "utf-8", "hällo".encode(), False)
            assert page.text == "hällo"
            (request,) = server.requests
            assert (request.method, request.target) == ("GET", "/a?b=c%20d")
            assert request.headers["host"] == f"127.0.0.1:{server.port}"
            assert not {"cookie", "authorization", "referer"} & set(request.headers)

    run(test())


HIDDEN = [
    *("127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "017700000001", "0.0.0.0", "127.0.0.1."),
    *("[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::127.0.0.1]", "[2002:7f00:1::]", "10.1.2.3"),
    *("169.254.169.254", "[fd00:ec2::254]", "100.64.1.1"),
]


@pytest.mark.parametrize("host", HIDDEN)
def test_what_is_not_public_is_not_connected_to(host: str) -> None:
    async def test() -> None:
        async with serving({"/": answer("secret")}) as server:
            rules = FetchRules(allowed_ports=frozenset({server.port}))
            with pytest.raises(PermissionError, match="has no public address"):
                await fetch(server.url(host=host), rules)
            assert server.connections == 0

    run(test())


@pytest.mark.parametrize("host", HIDDEN)
def test_nor_where_a_redirect_leads_there(host: str) -> None:
    async def test() -> None:
        async with serving({"/secret": answer("secret")}) as hidden:
            rules = replace(
                HERE,
                allowed_hosts=frozenset({"open.test"}),
                allowed_ports=frozenset({hidden.port}),
                resolve=besides_system(resolving(open_test=["127.0.0.1"])),
            )
            async with serving({"/": redirect(hidden.url("/secret", host))}) as server:
                with pytest.raises(PermissionError, match="has no public address"):
                    await fetch(server.url(host="open.test"), rules)
                assert len(server.requests) == 1
            assert hidden.connections == 0

    run(test())


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["fe80::1%lo"], []])
def test_a_name_is_as_good_as_the_worst_of_its_addresses(addresses: list[str]) -> None:
    async def test() -> None:
        async with serving({"/": answer("secret")}) as server:
            rules = FetchRules(allowed_ports=frozenset({server.port}), resolve=resolving(name_test=addresses))
            told = []
            for host in ("name.test", "unknown.test"):
                with pytest.raises(PermissionError) as caught:
                    await fetch(server.url(host=host), rules)
                told.append(str(caught.value).removeprefix(host))
            assert told == [" has no public address"] * 2  # whether there is such a name inside is not said
            assert server.connections == 0

    run(test())


def test_a_name_is_resolved_once_and_connected_to_where_it_was() -> None:
    asked: list[tuple[str, int]] = []

    async def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append((host, port))
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.9"]

    async def test() -> None:
        async with serving({"/": answer("hello")}) as server:
            rules = FetchRules(allow_private_addresses=True, allowed_ports=frozenset({server.port}), resolve=rebinding)
            assert (await fetch(server.url(host="pinned.test"), rules)).text == "hello"
            assert asked == [("pinned.test", server.port)]
            assert server.requests[0].headers["host"] == f"pinned.test:{server.port}"

    run(test())


def test_the_next_address_is_tried_where_nobody_listens() -> None:
    rules = replace(HERE, allowed_hosts=frozenset({"two.test"}), resolve=resolving(two_test=["127.0.0.9", "127.0.0.1"]))
    assert run(got(answer("hello"), rules, host="two.test")).text == "hello"


@pytest.mark.parametrize(("allowed", "host"), [("Two.Test", "two.test"), ("two.test", "TWO.test")])
def test_a_host_that_may_be_anywhere_may_so_in_upper_case_and_lower(allowed: str, host: str) -> None:
    rules = replace(HERE, allowed_hosts=frozenset({allowed}), resolve=resolving(two_test=["127.0.0.1"]))
    assert run(got(answer("hello"), rules, host=host)).text == "hello"


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1 cannot be reached"):
        run(fetch(f"http://127.0.0.1:{port}/", HERE))


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("ftp://example.org/", ValueError, "is no URL of http or https"),
        ("file:///etc/passwd", ValueError, "is no URL of http or https"),
        ("gopher://127.0.0.1:70/", ValueError, "is no URL of http or https"),
        ("example.org", ValueError, "is no URL of http or https"),
        ("http://", ValueError, "is no URL of http or https"),
        ("http:///x", ValueError, "is no URL of http or https"),
        ("http://a\nb/", ValueError, "is no URL of http or https"),
        ("http://[::1/", ValueError, "is no URL of http or https"),
        ("http://example.org/" + "a" * 9000, ValueError, "is no URL of http or https"),
        ("http://me:secret@example.org/", PermissionError, "user name or a password"),
        ("http://example.org\\@127.0.0.1/", PermissionError, "user name or a password"),
        ("http://example.org:22/", PermissionError, "port 22 is not allowed"),
        ("https://example.org:8443/", PermissionError, "port 8443 is not allowed"),
        ("http://example.org:0/", PermissionError, "port 0 is not allowed"),
    ],
)
def test_a_url_that_is_none_or_holds_more_than_it_should_is_refused(url: str, kind: type, message: str) -> None:
    async def never(host: str, port: int) -> Sequence[str]:
        raise AssertionError("nothing is resolved for it")

    with pytest.raises(kind, match=message) as caught:
        run(fetch(url, FetchRules(resolve=never)))
    assert "secret" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["a" * 64 + ".org", "x..org", "a" * 300])
def test_a_name_that_cannot_be_one_has_no_address(host: str) -> None:
    with pytest.raises(PermissionError, match="has no public address"):
        run(fetch(f"http://{host}/", FetchRules()))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(status: int) -> None:
    async def test() -> None:
        async with serving({"/": redirect("../b?c", status), "/b": answer("there")}) as server:
            page = await fetch(server.url(), HERE)
            assert (page.text, page.url) == ("there", server.url("/b?c"))

    run(test())


def test_redirects_end() -> None:
    async def test() -> None:
        steps = {f"/{n}": redirect(f"/{n + 1}") for n in range(MAX_REDIRECTS + 1)}
        async with serving({**steps, f"/{MAX_REDIRECTS}": answer("there")}) as server:
            assert (await fetch(server.url("/0"), HERE)).text == "there"
        async with serving(steps) as server:
            with pytest.raises(ConnectionError, match="redirects more than 5 times"):
                await fetch(server.url("/0"), HERE)
            assert len(server.requests) == MAX_REDIRECTS + 1

    run(test())


@pytest.mark.parametrize(
    ("location", "kind", "message"),
    [
        ("file:///etc/passwd", ValueError, "file:/etc/passwd is no URL of http or https"),
        ("http://user:pw@127.0.0.1/", PermissionError, "user name"),
        ("http://example.org:22/", PermissionError, "port 22"),
        ("http://x" + "y" * 9000, ValueError, "is no URL"),
    ],
)
def test_a_redirect_is_checked_as_a_url_is(location: str, kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        run(got(redirect(location)))


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    assert run(got(answer("direct"))).text == "direct"


def test_a_cancelled_fetch_closes_its_connection() -> None:
    closed = asyncio.Event()

    async def told(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nx")
        begun.set()
        try:
            await writer.drain()
            while not writer.transport.is_closing():
                writer.write(b"x" * 1000)
                await writer.drain()
        finally:
            closed.set()

    async def test() -> None:
        async with serving({"/": told}) as server:
            task = asyncio.create_task(fetch(server.url(), replace(HERE, max_bytes=1 << 40)))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await closed.wait()

    begun = asyncio.Event()
    run(test())


def test_a_server_is_told_apart_from_what_it_leads_to() -> None:
    """Two hosts at one address are two connections: what was checked for one is not used for the other."""

    async def test(server: Server) -> None:
        rules = replace(
            HERE,
            allowed_hosts=frozenset({"a.test", "b.test"}),
            resolve=resolving(a_test=["127.0.0.1"], b_test=["127.0.0.1"]),
        )
        server.answers = {"/": redirect(server.url("/b", "b.test")), "/b": answer("b", connection="keep-alive")}
        await fetch(server.url(host="a.test"), rules)
        assert server.connections == 2
        assert [request.headers["host"].partition(":")[0] for request in server.requests] == ["a.test", "b.test"]

    async def both() -> None:
        async with serving({}) as server:
            await test(server)

    run(both())


def test_names_are_looked_up_apart_from_what_else_waits_for_threads() -> None:
    async def test() -> None:
        free = threading.Event()
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        busy = loop.run_in_executor(None, free.wait, 60)
        try:
            async with asyncio.timeout(30):
                assert "127.0.0.1" in await system_resolve("127.0.0.1", 80)
        finally:
            free.set()
        assert await busy

    run(test())
