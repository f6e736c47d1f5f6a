"""Fetches a URL that code chose. The host's network is not the code's: every step is checked, and bounded.

The name is resolved once, all its addresses are checked, and the connection is made to one of these: a name that
resolves to another address the next moment (DNS rebinding) gains nothing. Each redirect goes the same way.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from http import HTTPStatus

import httpx2

from orchestrator.sanitise import one_line
from orchestrator.tools.web.rules import FetchRules, default_tls, shown

MAX_REDIRECTS = 5
_CONNECT_SECONDS = 5.0  # for one address
_HEADERS = {
    "User-Agent": "Mozilla/5.0 (compatible; cellblock)",
    "Accept": "text/html,application/xhtml+xml,text/*;q=0.9,application/json;q=0.9,*/*;q=0.1",
    "Accept-Encoding": "gzip, deflate",
}
_UNPACKED = frozenset({"", "identity", "gzip", "deflate"})  # one of them; layers of packing serve bombs alone
_TEXT = re.compile(r"text/[\w.+-]+|application/(?:[\w.-]+\+)?(?:json|xml|xhtml)")
# The encodings of pages, by the names that Python knows. Not any that Python knows: idna and punycode take time that
# grows with the square of the input.
_CHARSETS = re.compile(
    r"utf-?8|utf-?16(?:-?[lb]e)?|us-ascii|ascii|iso-?8859-?\d{1,2}|latin-?1|(?:windows|cp)-?125\d|koi8-[ru]"
    r"|shift[_-]jis|euc-(?:jp|kr)|iso-2022-jp|gb2312|gbk|gb18030|big5(?:-hkscs)?"
)
_META = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?\s*([\w-]{1,20})""", re.I)
_META_WITHIN = 1024  # bytes: where the HTML standard wants it


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was found.

    Attributes:
        url: where, after redirects.
        content_type: such as ``text/html``, in small letters; ``text/plain`` where the server names none.
        charset: what the server says of it; may be empty.
        body: unpacked.
        is_cut: whether there was more of it than is allowed.
    """

    url: str
    content_type: str
    charset: str
    body: bytes
    is_cut: bool

    @property
    def text(self) -> str:
        """The body as text. What its encoding does not know is replaced."""
        written = _META.search(self.body[:_META_WITHIN]) if "html" in self.content_type else None
        names = [self.charset.lower(), written[1].decode("ascii", "replace").lower() if written else "", "utf-8"]
        name = next(name for name in names if _CHARSETS.fullmatch(name))
        try:
            return self.body.decode(name, "replace")
        except LookupError:  # iso-8859-12 has never come to be
            return self.body.decode("utf-8", "replace")


def is_text(content_type: str) -> bool:
    """Whether it is HTML, other text, JSON or XML."""
    return _TEXT.fullmatch(content_type) is not None


async def fetch(url: str, rules: FetchRules, accepts: Callable[[str], bool] = is_text) -> Fetched:
    """What a GET of ``url`` gives, after at most ``MAX_REDIRECTS`` redirects. Proxies of the environment are ignored.

    Args:
        url: the URL, as the code wrote it.
        rules: the bounds.
        accepts: whether a content type is wanted; the body of another one is not read.

    Raises:
        ValueError: it is no URL of http or https.
        PermissionError: it must not be fetched, or a redirect leads to where it must not.
        TimeoutError: it took longer than the rules allow.
        ConnectionError: the server cannot be reached, or breaks off.
        OSError: an HTTP status that is no success, or a content type that is not wanted.
    """
    try:
        async with asyncio.timeout(rules.seconds):
            return await _follow(url, rules, accepts)
    except TimeoutError:
        raise TimeoutError(f"{shown(url)} did not answer in full within {rules.seconds:g} s") from None


async def _follow(url: str, rules: FetchRules, accepts: Callable[[str], bool]) -> Fetched:
    target = rules.check_url(url)
    for _ in range(MAX_REDIRECTS + 1):
        async with AsyncExitStack() as stack:
            response = await _answer(target, rules, stack)
            if not response.has_redirect_location:
                return await _read(target, response, rules, accepts)
            target = rules.check_url(_next(target, response.headers["Location"]))
    raise ConnectionError(f"{shown(url)} redirects more than {MAX_REDIRECTS} times")


def _next(target: httpx2.URL, location: str) -> str:
    try:
        return str(target.join(location))
    except (httpx2.InvalidURL, ValueError):
        return location  # which is no URL, as the check will say


async def _answer(target: httpx2.URL, rules: FetchRules, stack: AsyncExitStack) -> httpx2.Response:
    """The head of the answer from the first address that can be connected to. ``stack`` closes the connection."""
    for address in await rules.addresses(target):
        try:
            return await _get(target, address, rules, stack)
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            continue
        except httpx2.HTTPError:
            raise ConnectionError(f"{shown(str(target))}: the server broke off, or spoke no HTTP") from None
    raise ConnectionError(f"{shown(target.host)} cannot be reached, or has no valid certificate")


async def _get(target: httpx2.URL, address: str, rules: FetchRules, stack: AsyncExitStack) -> httpx2.Response:
    # A client for this one request: another one's open connection was made for another name, and its certificate
    # checked for that.
    transport = httpx2.AsyncHTTPTransport(verify=rules.tls or default_tls(), trust_env=False)
    # The deadline of the whole ends it. Only connecting has its own, so that there is time for the next address.
    timeout = httpx2.Timeout(None, connect=_CONNECT_SECONDS)
    client = httpx2.AsyncClient(transport=transport, trust_env=False, timeout=timeout)
    await stack.enter_async_context(client)
    request = client.build_request(
        "GET",
        target.copy_with(host=address),
        headers=_HEADERS | {"Host": target.netloc.decode("ascii")},
        extensions={"sni_hostname": target.raw_host.decode("ascii").rstrip(".")},
    )
    response = await client.send(request, stream=True, follow_redirects=False)
    stack.push_async_callback(response.aclose)
    return response


async def _read(
    target: httpx2.URL, response: httpx2.Response, rules: FetchRules, accepts: Callable[[str], bool]
) -> Fetched:
    where = shown(str(target))
    if not response.is_success:
        raise OSError(f"{where} answered with HTTP {_status(response.status_code)}")
    content_type = response.headers.get("Content-Type", "text/plain").partition(";")[0].strip().lower()
    if not accepts(content_type):
        raise OSError(f"{where} is of type {one_line(content_type, 100)!r}, which cannot be shown here")
    if response.headers.get("Content-Encoding", "").strip().lower() not in _UNPACKED:
        raise OSError(f"{where} is packed in a way that was not asked for")
    try:
        body, is_cut = await _body(response, rules.max_bytes)
    except httpx2.HTTPError:
        raise ConnectionError(f"{where}: the server broke off, or what it sent cannot be unpacked") from None
    return Fetched(str(target), content_type, response.charset_encoding or "", body, is_cut)


async def _body(response: httpx2.Response, limit: int) -> tuple[bytes, bool]:
    body = bytearray()
    async for chunk in response.aiter_bytes():  # unpacked in pieces of at most a mebibyte
        body += chunk
        if len(body) > limit:
            return bytes(body[:limit]), True
    return bytes(body), False


def _status(code: int) -> str:
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)
