"""Where a reply ends: the filter of a stream gives what cutting the whole text gives, however it was split."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.models.stops import StopFilter, cut_at_stop

FEW_LETTERS = st.text("ab\n", max_size=12)  # so that beginnings of stop sequences are common, and overlap
STOPS = st.lists(st.text("ab\n", max_size=4), max_size=3)


def filtered(pieces: list[str], stops: list[str]) -> str:
    stop = StopFilter(stops)
    return "".join(stop.feed(piece) for piece in pieces) + stop.rest()


@given(st.text(), st.lists(st.text(min_size=1), max_size=3))
def test_a_cut_text_has_no_stop_sequence(text: str, stops: list[str]) -> None:
    cut = cut_at_stop(text, stops)
    assert text.startswith(cut)
    assert not any(stop in cut for stop in stops)


@given(st.lists(FEW_LETTERS, max_size=8), STOPS)
@example(["ab", "c"], ["abc", "b"])  # the later one is complete first
@example(["ab", "d"], ["abc", "b"])
@example(["aa", "ab"], ["aab"])
@example(["x", "y"], [""])
def test_any_pieces_give_what_the_whole_text_gives(pieces: list[str], stops: list[str]) -> None:
    assert filtered(pieces, stops) == cut_at_stop("".join(pieces), stops)


@given(FEW_LETTERS, STOPS)
def test_every_splitting_of_a_text_gives_the_same(text: str, stops: list[str]) -> None:
    whole = cut_at_stop(text, stops)
    assert filtered(list(text), stops) == whole
    for at in range(len(text) + 1):
        for end in range(at, len(text) + 1):
            assert filtered([text[:at], text[at:end], text[end:]], stops) == whole


@given(st.lists(FEW_LETTERS, max_size=8), STOPS)
def test_no_more_is_held_back_than_needed(pieces: list[str], stops: list[str]) -> None:
    stop, given_, seen = StopFilter(stops), "", ""
    for piece in pieces:
        given_, seen = given_ + stop.feed(piece), seen + piece
        held = seen[len(given_) :]
        assert stop.stopped or not held or any(len(held) < len(other) and other.startswith(held) for other in stops)


def test_nothing_is_given_after_a_stop() -> None:
    stop = StopFilter(["END"])
    assert [stop.feed("one E"), stop.feed("ND two"), stop.feed("three"), stop.rest()] == ["one ", "", "", ""]
    assert stop.stopped
