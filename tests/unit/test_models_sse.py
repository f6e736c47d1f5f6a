"""Server-sent events, however the bytes are split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.models.sse import EventData


def data_of(*pieces: bytes) -> list[str]:
    decoder = EventData()
    return [data for piece in pieces for data in decoder.feed(piece)] + list(decoder.rest())


@pytest.mark.parametrize(
    ("stream", "data"),
    [
        (b"data: a\n\ndata: b\n\n", ["a", "b"]),
        (b"data:a\r\n\r\ndata: b\r\rdata:  c\n\n", ["a", "b", " c"]),
        (b": ping\n\nevent: x\nid: 1\ndata: a\nretry: 3\n\n\n\n", ["a"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b"data\n\n", [""]),
        (b"data: [DONE]", ["[DONE]"]),
        (b"data: \xff\xc3\n\n", ["\ufffd\ufffd"]),
        (b"<html>data: a</html>", []),
        (b"", []),
    ],
)
def test_every_splitting_gives_the_same(stream: bytes, data: list[str]) -> None:
    assert data_of(stream) == data
    assert data_of(*(bytes([byte]) for byte in stream)) == data
    for at in range(len(stream)):
        assert data_of(stream[:at], b"", stream[at:]) == data


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), max_size=5), st.data())
def test_what_was_sent_arrives(sent: list[str], data: st.DataObject) -> None:
    stream = b"".join(f"data: {text}\n\n".encode() for text in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    ends = zip([0, *cuts], [*cuts, len(stream)], strict=True)
    assert data_of(*(stream[begin:end] for begin, end in ends)) == sent


def test_what_is_held_is_counted_until_its_event_ends() -> None:
    decoder = EventData()
    assert list(decoder.feed(b"data: " + b"x" * 94 + b"\ndata: y")) == []
    assert decoder.held == 100 + 1 + 7
    assert list(decoder.feed(b"\n\n")) == ["x" * 94 + "\ny"]
    assert decoder.held == 0
