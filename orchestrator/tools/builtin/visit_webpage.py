"""Reads a web page that the code chose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec

from orchestrator.errors import ConfigError, missing_extra
from orchestrator.tools.schema import Schema
from orchestrator.tools.tool import Tool
from orchestrator.tools.web.markdown import to_markdown
from orchestrator.tools.web.rules import FetchRules
from orchestrator.tools.web.safe_fetch import Fetched, fetch


class VisitWebpageTool(Tool):
    """Gives a page as Markdown; other text and JSON as they are.

    Code in a sandbox has no network, and what it asks for here it must not reach either: only public addresses are
    connected to, redirects included. See ``orchestrator.tools.web``.

    Args:
        max_output_length: characters of a page; the rest is left out.
        allow_private_addresses: also pages of this machine and of networks that are not public.
        allowed_hosts: host names or addresses that may be at any address and any port, such as those of an intranet.
        rules: all bounds of fetching, instead of these two.

    Raises:
        ConfigError: the library that reads HTML is missing, a number is out of range, or the hosts are no list.
    """

    name = "visit_webpage"
    description = "Reads the web page at a URL and gives its content as Markdown."
    inputs: Mapping[str, Schema] = {
        "url": {"type": "string", "description": "the page's URL, with http:// or https://"}
    }
    output_type = "string"

    def __init__(
        self,
        max_output_length: int = 40_000,
        *,
        allow_private_addresses: bool = False,
        allowed_hosts: Iterable[str] = (),
        rules: FetchRules | None = None,
    ) -> None:
        if find_spec("html_to_markdown") is None:
            raise missing_extra("visit_webpage", "html-to-markdown", "search")
        if isinstance(allowed_hosts, str):
            raise ConfigError(f"allowed_hosts is a list of names, also for a single one, not {allowed_hosts!r}")
        if max_output_length < 1:
            raise ConfigError(f"max_output_length is {max_output_length}; it must be at least 1")
        self._most = max_output_length
        self._rules = rules or FetchRules(
            allow_private_addresses=allow_private_addresses, allowed_hosts=frozenset(allowed_hosts)
        )

    async def forward(self, url: str) -> str:
        """The page.

        Raises:
            ValueError: it is no URL of http or https.
            OSError: it must not be fetched, cannot be reached or is no text; which of these, the type and message say.
        """
        page = await fetch(url, self._rules)
        text, is_more = await self._text(page)
        if not (page.is_cut or is_more):
            return text
        return f"{text}\n\n(The page is longer; this is its beginning, {len(text):,} characters.)"

    async def _text(self, page: Fetched) -> tuple[str, bool]:
        text = page.text
        if "html" in page.content_type:
            return await to_markdown(text, page.url, self._most)
        return text[: self._most], len(text) > self._most
