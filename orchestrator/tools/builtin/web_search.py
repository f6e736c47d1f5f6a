"""Tools that search the web. All have the name ``web_search``: an agent has one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.pace import Pace
from orchestrator.tools.schema import Schema
from orchestrator.tools.tool import Tool
from orchestrator.tools.web.json_api import find_key
from orchestrator.tools.web.search_engines import (
    BRAVE,
    SERPAPI,
    SERPER,
    BraveEngine,
    DdgsEngine,
    SearchEngine,
    SerpApiEngine,
    SerperEngine,
)
from orchestrator.tools.web.search_results import as_markdown

MAX_RESULTS = 100  # more than any engine gives at once
_BRAVE_HEADER = "X-Subscription-Token"
_QUERY = {"type": "string", "description": "what to search for"}


class _SearchTool(Tool):
    """Searches with one engine, at a pace."""

    name = "web_search"
    description = "Searches the web and gives titles, links and the first words of what it finds."
    inputs: Mapping[str, Schema] = {"query": _QUERY}
    output_type = "string"

    def _prepare(self, engine: SearchEngine, max_results: int, rate_limit: float | None) -> None:
        if not 1 <= max_results <= MAX_RESULTS:
            raise ConfigError(f"max_results is {max_results}; it must be 1 to {MAX_RESULTS}")
        self.max_results = max_results
        self._engine = engine
        self._pace = Pace(rate_limit, 1.0, "rate_limit")

    async def forward(self, query: str) -> str:
        """The results as Markdown.

        Raises:
            OSError: the engine cannot be asked.
        """
        return await self._found(self._engine, query)

    async def _found(self, engine: SearchEngine, query: str) -> str:
        await self._pace.turn()
        return as_markdown(query, await engine.search(query, self.max_results))


class WebSearchTool(_SearchTool):
    """Searches with the engine of that name.

    Args:
        max_results: how many results at most, 1 to 100.
        engine: ``duckduckgo`` or another one that the ddgs library reads without a key, or ``brave_api``.
        api_key: for ``brave_api``; default ``BRAVE_API_KEY``.
        rate_limit: searches in a second; None for no limit.

    Raises:
        ConfigError: the engine is not known, its key or its library is missing, or a number is out of range.
    """

    def __init__(
        self,
        max_results: int = 10,
        engine: str = "duckduckgo",
        api_key: str | None = None,
        rate_limit: float | None = None,
    ) -> None:
        self._prepare(_engine(engine, api_key), max_results, rate_limit)


def _engine(name: str, api_key: str | None) -> SearchEngine:
    if name != "brave_api":
        return DdgsEngine(name)
    return BraveEngine({_BRAVE_HEADER: find_key("web_search with brave_api", api_key, "BRAVE_API_KEY")})


class DuckDuckGoSearchTool(_SearchTool):
    """Searches with DuckDuckGo.

    Args:
        max_results: how many results at most, 1 to 100.
        rate_limit: searches in a second; None for no limit.
        options: of ``ddgs.DDGS``, such as ``proxy`` or ``timeout``.

    Raises:
        ConfigError: the library is missing, or a number is out of range.
    """

    def __init__(self, max_results: int = 10, rate_limit: float | None = 1.0, **options: Any) -> None:
        self._prepare(DdgsEngine("duckduckgo", options), max_results, rate_limit)


class ApiWebSearchTool(_SearchTool):
    """Searches with Brave's API, or with one that answers like it.

    Args:
        endpoint: its address.
        api_key: the key; default that of the environment.
        api_key_name: the variable of the environment; default ``BRAVE_API_KEY``.
        headers: of each request; default the key as Brave wants it.
        params: of each request, besides the query.
        rate_limit: searches in a second; None for no limit.
        max_results: how many results at most, 1 to 100.

    Raises:
        ConfigError: there is no key and there are no headers, or a number is out of range.
    """

    def __init__(
        self,
        endpoint: str = "",
        api_key: str = "",
        api_key_name: str = "",
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        rate_limit: float | None = 1.0,
        max_results: int = 10,
    ) -> None:
        if headers is None:
            headers = {_BRAVE_HEADER: find_key("web_search", api_key, api_key_name or "BRAVE_API_KEY")}
        self._prepare(BraveEngine(headers, params or {}, endpoint or BRAVE), max_results, rate_limit)


class GoogleSearchTool(_SearchTool):
    """Searches with Google, through a service that needs a key.

    Args:
        provider: ``serpapi`` or ``serper``.
        api_key: the key; default ``SERPAPI_API_KEY`` or ``SERPER_API_KEY``.
        max_results: how many results at most, 1 to 100.
        endpoint: the service's address, if it is not its own.

    Raises:
        ConfigError: the provider is not known, there is no key, or a number is out of range.
    """

    inputs: Mapping[str, Schema] = {
        "query": _QUERY,
        "filter_year": {"type": "integer", "description": "only pages of this year", "nullable": True},
    }

    def __init__(
        self, provider: str = "serpapi", api_key: str | None = None, max_results: int = 10, endpoint: str = ""
    ) -> None:
        if provider not in ("serpapi", "serper"):
            raise ConfigError(f"provider is {provider!r}; it must be serpapi or serper")
        self._provider = provider
        self._key = find_key(f"web_search with {provider}", api_key, f"{provider.upper()}_API_KEY")
        self._endpoint = endpoint
        self._prepare(self._made({}), max_results, None)

    def _made(self, params: Mapping[str, Any]) -> SearchEngine:
        if self._provider == "serper":
            return SerperEngine(self._key, params, self._endpoint or SERPER)
        return SerpApiEngine(self._key, params, self._endpoint or SERPAPI)

    async def forward(self, query: str, filter_year: int | None = None) -> str:
        """The results as Markdown.

        Raises:
            OSError: the service cannot be asked.
        """
        if filter_year is None:
            return await self._found(self._engine, query)
        year = {"tbs": f"cdr:1,cd_min:01/01/{filter_year},cd_max:12/31/{filter_year}"}
        return await self._found(self._made(year), query)
