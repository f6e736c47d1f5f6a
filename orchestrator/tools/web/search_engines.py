"""Search engines behind one small protocol: those that need no key, through the ddgs library, and those that do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.errors import ConfigError, missing_extra
from orchestrator.tools.web.json_api import ask
from orchestrator.tools.web.search_results import Hit

BRAVE = "https://api.search.brave.com/res/v1/web/search"
SERPER = "https://google.serper.dev/search"
SERPAPI = "https://serpapi.com/search.json"
_DDGS_SECONDS = 10  # for one engine's answer
_NOTHING = "No results found."  # what ddgs raises as an error
_EMPHASIS = re.compile(r"</?(?:strong|b|em)>")  # how Brave marks the words that were searched for


class SearchEngine(Protocol):
    """Something that finds pages."""

    async def search(self, query: str, most: int) -> Sequence[Hit]:
        """At most ``most`` hits, best first.

        Raises:
            OSError: the engine cannot be asked; the message says why, and no key.
        """
        ...


def _rows(answer: Mapping[str, Any], *path: str) -> Iterable[Mapping[str, Any]]:
    """The objects in the list at ``path``; none where the answer is built otherwise."""
    rows: Any = answer
    for key in path:
        rows = rows.get(key) if isinstance(rows, dict) else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


class DdgsEngine:
    """An engine that ddgs knows, such as ``duckduckgo``; its pages are read as a browser would.

    Args:
        backend: its name there.
        options: of ``ddgs.DDGS``, such as ``proxy``.

    Raises:
        ConfigError: the library is missing, or does not know the engine.
    """

    def __init__(self, backend: str, options: Mapping[str, Any] | None = None) -> None:
        try:
            from ddgs.engines import ENGINES  # an extra
        except ImportError:
            raise missing_extra("web search", "ddgs", "search") from None
        if backend not in ENGINES["text"]:
            raise ConfigError(f"search engine {backend!r} is none of {', '.join(known_engines())}")
        self._backend = backend
        self._options = {"timeout": _DDGS_SECONDS, **(options or {})}

    async def search(self, query: str, most: int) -> Sequence[Hit]:
        """See ``SearchEngine``."""
        return await asyncio.to_thread(self._search, query, most)

    def _search(self, query: str, most: int) -> Sequence[Hit]:
        from ddgs import DDGS
        from ddgs.exceptions import DDGSException, TimeoutException

        try:
            rows = DDGS(**self._options).text(query, max_results=most, backend=self._backend)
        except TimeoutException:
            raise TimeoutError(f"{self._backend} did not answer in time") from None
        except DDGSException as error:
            if str(error) == _NOTHING:
                return []
            raise ConnectionError(f"{self._backend} cannot be asked at the moment") from None
        return [Hit.of(row.get("title"), row.get("href"), row.get("body")) for row in rows[:most]]


@dataclass(frozen=True, slots=True)
class BraveEngine:
    """Brave's search API (https://api-dashboard.search.brave.com/app/documentation), or one that answers like it.

    Attributes:
        headers: of each request; the key is in there.
        params: of each request, besides the query.
        endpoint: its address.
    """

    headers: Mapping[str, str] = field(repr=False)
    params: Mapping[str, Any] = field(default_factory=dict, repr=False)
    endpoint: str = BRAVE

    async def search(self, query: str, most: int) -> Sequence[Hit]:
        """See ``SearchEngine``."""
        params = {"count": min(most, 20), **self.params, "q": query}  # 20: what Brave gives at once
        answer = await ask("the search engine", self.endpoint, params=params, headers=self.headers)
        return [
            Hit.of(row.get("title"), row.get("url"), _EMPHASIS.sub("", str(row.get("description") or "")))
            for row in _rows(answer, "web", "results")
        ][:most]


@dataclass(frozen=True, slots=True)
class SerperEngine:
    """Google's results from Serper (https://serper.dev). ``params`` go along with each request."""

    key: str = field(repr=False)
    params: Mapping[str, Any] = field(default_factory=dict)
    endpoint: str = SERPER

    async def search(self, query: str, most: int) -> Sequence[Hit]:
        """See ``SearchEngine``."""
        body = {"num": most, **self.params, "q": query}
        answer = await ask("Serper", self.endpoint, headers={"X-API-KEY": self.key}, body=body)
        return [Hit.of(row.get("title"), row.get("link"), _snippet(row)) for row in _rows(answer, "organic")][:most]


@dataclass(frozen=True, slots=True)
class SerpApiEngine:
    """Google's results from SerpApi (https://serpapi.com/search-api). ``params`` go along with each request.

    SerpApi takes the key in the URL alone: a log of the HTTP client at level INFO shows it.
    """

    key: str = field(repr=False)
    params: Mapping[str, Any] = field(default_factory=dict)
    endpoint: str = SERPAPI

    async def search(self, query: str, most: int) -> Sequence[Hit]:
        """See ``SearchEngine``."""
        params = {"engine": "google", "num": most, **self.params, "q": query, "api_key": self.key}
        answer = await ask("SerpApi", self.endpoint, params=params)
        rows = _rows(answer, "organic_results")
        return [Hit.of(row.get("title"), row.get("link"), _snippet(row)) for row in rows][:most]


def _snippet(row: Mapping[str, Any]) -> str:
    """With its date, where Google knows one."""
    return ": ".join(str(row[key]) for key in ("date", "snippet") if row.get(key))


def known_engines() -> list[str]:
    """What ``engine`` of ``WebSearchTool`` may be: those of the ddgs that is installed, and those with a key."""
    try:
        from ddgs.engines import ENGINES
    except ImportError:
        return ["brave_api"]
    return sorted({*ENGINES["text"], "brave_api"})
