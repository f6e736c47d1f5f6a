"""What a search found, as a model reads it. Titles and snippets are other people's text: on one line, and short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from orchestrator.sanitise import one_line

_MAX_TITLE, _MAX_URL, _MAX_SNIPPET = 300, 2000, 1000  # characters


@dataclass(frozen=True, slots=True)
class Hit:
    """One result."""

    title: str
    url: str
    snippet: str

    @classmethod
    def of(cls, title: Any, url: Any, snippet: Any) -> Self:
        """From what a search engine sent, which may be anything."""
        return cls(_line(title, _MAX_TITLE), _line(url, _MAX_URL), _line(snippet, _MAX_SNIPPET))


def _line(text: Any, limit: int) -> str:
    return one_line(text[: 4 * limit], limit) if isinstance(text, str) else ""


def as_markdown(query: str, hits: Sequence[Hit]) -> str:
    """A list of links, or that there is nothing."""
    if not hits:
        return f"No results for {one_line(query, 200)!r}. Try fewer or other words."
    return "\n\n".join(["## Search Results", *(f"[{hit.title}]({hit.url})\n{hit.snippet}".rstrip() for hit in hits)])
