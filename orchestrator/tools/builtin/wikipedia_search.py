"""Looks up Wikipedia, through MediaWiki's own API (https://www.mediawiki.org/wiki/Extension:TextExtracts)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from orchestrator.errors import ConfigError
from orchestrator.sanitise import one_line
from orchestrator.tools.schema import Schema
from orchestrator.tools.tool import Tool
from orchestrator.tools.web.json_api import ask

MAX_OUTPUT = 40_000  # characters of an article, as of a web page
_LANGUAGE = re.compile(r"[a-z]{2,12}(?:-[a-z]{1,12}){0,2}")  # it becomes part of the host's name


class WikipediaSearchTool(Tool):
    """Gives the article that fits best.

    Args:
        user_agent: who asks; Wikipedia wants a name and an address for questions in it.
        language: of the Wikipedia, such as ``en``.
        content_type: ``text`` for the whole article, ``summary`` for its beginning.
        extract_format: ``WIKI`` for plain text, ``HTML``.
        endpoint: of the API, if it is not that language's Wikipedia.

    Raises:
        ConfigError: one of them is none of these.
    """

    name = "wikipedia_search"
    description = "Searches Wikipedia and gives the article that fits best, with its address."
    inputs: Mapping[str, Schema] = {"query": {"type": "string", "description": "what to look up"}}
    output_type = "string"

    def __init__(
        self,
        user_agent: str = "cellblock",
        language: str = "en",
        content_type: Literal["text", "summary"] = "text",
        extract_format: Literal["WIKI", "HTML"] = "WIKI",
        endpoint: str = "",
    ) -> None:
        if not _LANGUAGE.fullmatch(language):
            raise ConfigError(f"language is {language!r}; it must be that of a Wikipedia, such as 'en'")
        if content_type not in ("text", "summary") or extract_format not in ("WIKI", "HTML"):
            raise ConfigError("content_type must be 'text' or 'summary', and extract_format 'WIKI' or 'HTML'")
        self._endpoint = endpoint or f"https://{language}.wikipedia.org/w/api.php"
        self._headers = {"User-Agent": user_agent}
        self._form = ({"exintro": 1} if content_type == "summary" else {}) | (
            {"explaintext": 1} if extract_format == "WIKI" else {}
        )

    async def forward(self, query: str) -> str:
        """The article.

        Raises:
            OSError: Wikipedia cannot be asked.
        """
        found = {"generator": "search", "gsrsearch": query, "gsrlimit": 1}
        shown = {"prop": "extracts|info", "inprop": "url", "redirects": 1, **self._form}
        params = {"action": "query", "format": "json", "formatversion": 2, **found, **shown}
        answer = await ask("Wikipedia", self._endpoint, params=params, headers=self._headers)
        return _article(query, answer)


def _article(query: str, answer: Any) -> str:
    try:
        page = answer["query"]["pages"][0]
        title, text, url = str(page["title"]), str(page["extract"]), str(page["fullurl"])
    except (KeyError, IndexError, TypeError):
        return f"Wikipedia has no article for {one_line(query, 200)!r}. Try other words."
    more = "" if len(text) <= MAX_OUTPUT else "\n\n(The article is longer; this is its beginning.)"
    return f"# {one_line(title, 300)}\n\n{text[:MAX_OUTPUT]}{more}\n\nFrom: {one_line(url, 2000)}"
