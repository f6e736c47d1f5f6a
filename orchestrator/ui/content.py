"""Values as Markdown for a chat window: answers, results, pictures and sound. All of it inert; see markup.py.

Pictures and sound are shown from the bytes that are here, as data URLs: nothing is fetched, decoded or stored for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.media import AgentAudio, AgentImage, Media, is_picture, media_of
from orchestrator.sandbox import NDArray, Table
from orchestrator.sanitise import in_words
from orchestrator.ui import markup

MAX_MEDIA = 4 << 20  # bytes of one picture or sound: it travels to the browser as text, a third longer
MAX_PARTS = 16  # pictures and sounds of one answer
MAX_TOGETHER = 8 << 20  # bytes of them all
_SHOWN_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp", "audio/wav", "audio/mpeg", "audio/ogg")


def value(given: Any) -> str:
    """A final answer, or any other value, as what it is: text, a picture, sound, a table; else as its JSON or repr."""
    return "\n\n".join(_values(given))


def pictures(given: Any, results: Sequence[Mapping[str, str | bytes]]) -> str:
    """The pictures and sounds that an execution's value is, or has alone in it; else those among its rich results."""
    found = _media(given)
    own = [found] if found else _all_media(given) if isinstance(given, (list, tuple)) else ()
    return "\n\n".join(_gallery(own or [part for bundle in results for part in _of_bundle(bundle)]))


def media(given: Media) -> str:
    """A picture or a sound."""
    if len(given.data) > MAX_MEDIA:
        return markup.plain(f"{given!r} is too large to be shown here (at most {MAX_MEDIA:,} bytes)")
    if isinstance(given, AgentAudio):
        return f'<audio controls src="{given.to_data_url()}"></audio>'
    return f'<img alt="picture" src="{given.to_data_url()}">'


def _values(given: Any) -> Iterator[str]:
    if isinstance(given, str):
        yield markup.prose(given) or "(an empty text)"
    elif isinstance(given, (list, tuple)) and given and (found := _all_media(given)):
        yield from _gallery(found)
    else:
        yield _shown(given)


def _shown(given: Any) -> str:
    found = _media(given)
    if found is not None:
        return media(found)
    rows = _table(given)
    return markup.table(rows.columns, rows.rows, rows.total) if rows else markup.block(*_text(given))


def _gallery(given: Sequence[Media]) -> Iterator[str]:
    size = 0
    for number, part in enumerate(given):
        size += len(part.data)
        if number == MAX_PARTS or size > MAX_TOGETHER:
            yield f"{len(given) - number:,} more are not shown."
            return
        yield media(part)


def _all_media(given: Sequence[Any]) -> Sequence[Media]:
    """Its pictures and sounds, if it has nothing else in it."""
    found = []
    for item in given:
        part = _media(item)
        if part is None:
            return ()
        found.append(part)
    return found


def _media(given: Any) -> Media | None:
    """``given``, if it is a picture or a sound, an image of Pillow among them."""
    if isinstance(given, Media):
        return given
    if isinstance(given, bytes) or is_picture(type(given)):
        for kind in (AgentImage, AgentAudio):
            try:
                return kind.of(given)
            except ConfigError:
                continue
    return None


def _of_bundle(bundle: Mapping[str, str | bytes]) -> Iterator[Media]:
    for mime in _SHOWN_TYPES:
        data = bundle.get(mime)
        if isinstance(data, bytes):
            try:
                yield media_of(data, mime)
            except ConfigError:
                continue
            return  # the others are the same in other forms


@dataclass(frozen=True, slots=True)
class _Table:
    """The first rows of a table that has ``total``."""

    columns: Sequence[object]
    rows: Sequence[Sequence[object]]
    total: int


def _table(given: Any) -> _Table | None:
    match given:
        case [dict() as first, *_] if first and all(isinstance(row, dict) for row in given):
            rows = [[row.get(column, "") for column in first] for row in given[: markup.MAX_ROWS]]
            return _Table(list(first), rows, len(given))
        case [[_, *_], *_] if all(isinstance(row, (list, tuple)) and len(row) == len(given[0]) for row in given):
            return _Table(range(len(given[0])), given[: markup.MAX_ROWS], len(given))
        case Table() if given.columns:
            return _of_columns(given)
        case NDArray(shape=(int(rows), int(columns))) if rows and columns:
            width = min(columns, markup.MAX_COLUMNS)
            cells = [_items(given, row * columns, width) for row in range(min(rows, markup.MAX_ROWS))]
            return _Table(range(columns), cells, rows)
        case _ if hasattr(given, "itertuples") and hasattr(given, "columns"):  # a DataFrame
            shown = given.iloc[: markup.MAX_ROWS]
            return _Table(list(given.columns), [tuple(row) for row in shown.itertuples(index=False)], len(given))
    return None


def _of_columns(given: Table) -> _Table:
    """The rows' labels come first, if they have any."""
    parts = ([given.index] if given.index else []) + list(given.columns)
    shown = [_first(values) for _, values in parts[: markup.MAX_COLUMNS]]
    return _Table([name for name, _ in parts], list(zip(*shown, strict=False)), given.rows)


def _first(values: NDArray | Sequence[Any]) -> list[Any]:
    """The first of a column's values."""
    return _items(values, 0, markup.MAX_ROWS) if isinstance(values, NDArray) else list(values[: markup.MAX_ROWS])


def _items(given: NDArray, start: int, count: int) -> list[Any]:
    """So many of its items in C order, or as many as there are: it may have millions."""
    size = len(given.data) // max(1, math.prod(given.shape))
    data = given.data[start * size : (start + count) * size]
    items: list[Any] = NDArray(given.dtype, (len(data) // max(1, size),), data).to_list()
    return items


def _text(given: Any) -> tuple[str, str]:
    """As text, and its language."""
    if isinstance(given, (dict, list)):
        try:
            return json.dumps(given, ensure_ascii=False, indent=2), "json"
        except (TypeError, ValueError, RecursionError):
            pass
    return in_words(given), "python"
