"""The chain of an audit log: whatever is done to its lines afterwards is found, and where."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.audit import chain
from orchestrator.audit.chain import GENESIS, MAX_LINE, BrokenChain, Head, Record, report

TIME = "2026-01-02T03:04:05.000006+00:00"


def log(count: int, sandbox: str = "s") -> list[bytes]:
    """The lines of a log of so many records."""
    lines, head = [], Head()
    for number in range(count):
        line, head = chain.make(head, TIME, sandbox, "tool_ended", {"call": number, "tool": "a"})
        lines.append(line + b"\n")
    return lines


LOG = log(8)
OTHER = log(8, "other")
HEAD = report(LOG).head


def recovered(lines: list[bytes], torn: bytes) -> list[bytes]:
    """What the next writer makes of a log whose end is torn."""
    record = chain.parse(lines[-1].rstrip()) if lines else None
    data = {"torn_bytes": len(torn), "torn_sha256": chain.digest(torn)}
    line, head = chain.make(record.head if record else Head(), TIME, "", chain.RECOVERED, data)
    after, _ = chain.make(head, TIME, "s", "tool_ended", {})
    return [*lines, torn + b"\n", line + b"\n", after + b"\n"]


# ------------------------------------------------------------------------------------------------- what it is made of


def test_a_line_is_canonical_json_with_its_own_hash_and_that_of_the_line_before() -> None:
    first, second = (json.loads(line) for line in LOG[:2])
    assert set(first) == {"data", "hash", "kind", "prev", "sandbox", "seq", "time"}
    assert (first["seq"], first["prev"], second["seq"], second["prev"]) == (1, GENESIS, 2, first["hash"])
    without = {key: value for key, value in first.items() if key != "hash"}
    plain = json.dumps(without, sort_keys=True, separators=(",", ":"))  # as docs/audit.md tells everybody to do it
    assert first["hash"] == chain.digest(plain.encode("ascii"))
    assert LOG[0].startswith(chain.BEGINNING)


def test_a_log_that_nobody_touched_holds() -> None:
    for count in range(len(LOG) + 1):
        found = report(LOG[:count])
        assert (found.records, found.holds, found.torn) == (count, True, ())
    assert report(LOG, HEAD).holds
    assert report(LOG, chain.parse(LOG[3].rstrip()).hash).holds, "a log may have grown since"


def test_the_records_can_be_read_back() -> None:
    found = [record for _, record in chain.walk(LOG) if isinstance(record, Record)]
    assert [(r.seq, r.sandbox, r.kind, dict(r.data)) for r in found][:2] == [
        (1, "s", "tool_ended", {"call": 0, "tool": "a"}),
        (2, "s", "tool_ended", {"call": 1, "tool": "a"}),
    ]


def test_a_record_that_could_not_be_read_back_is_not_made() -> None:
    with pytest.raises(ValueError, match="at most 16,384"):
        chain.make(Head(), TIME, "s", "k", {"a": "x" * MAX_LINE})
    with pytest.raises(ValueError, match="JSON"):
        chain.make(Head(), TIME, "s", "k", {"a": float("nan")})


# --------------------------------------------------------------------------------------------------- what is found

PLACES = st.integers(0, len(LOG) - 1)


def broken_at(lines: list[bytes]) -> int:
    """The first broken line; told the head, as whoever kept it would."""
    found = report(lines, HEAD)
    assert found.broken is not None, "nothing was found"
    assert found.records < found.broken.line
    return found.broken.line


@given(PLACES, st.data())
def test_any_edit_is_found_where_it_is(place: int, data: st.DataObject) -> None:
    line = LOG[place]
    at = data.draw(st.integers(0, len(line) - 1))
    old, new = data.draw(st.integers(0, 3)), data.draw(st.binary(max_size=3))
    edited = line[:at] + new + line[at + old :]
    lines = b"".join([*LOG[:place], edited, *LOG[place + 1 :]]).splitlines(keepends=True)
    if b"".join(lines) == b"".join(LOG):
        return
    if b"".join(lines) == b"".join(LOG).removesuffix(b"\n"):
        assert report(lines, HEAD).holds, "the very last line end is no part of a record"
        return
    assert broken_at(lines) == place + 1


@given(PLACES, st.integers(1, len(LOG)))
def test_any_deletion_is_found_where_it_is(place: int, count: int) -> None:
    lines = LOG[:place] + LOG[place + count :]
    assert broken_at(lines) == place + 1


def test_a_cut_end_is_found_only_by_who_has_kept_the_head() -> None:
    assert report(LOG[:5]).holds
    assert report(LOG[:5], HEAD).broken == chain.Broken(
        6, f"the log does not hold the record {HEAD!r}: its end is gone, or it is another log"
    )
    assert not report([], HEAD).holds


@given(st.permutations(range(len(LOG))))
def test_any_other_order_is_found_where_it_begins(order: list[int]) -> None:
    moved = [place for place, was in enumerate(order) if place != was]
    lines = [LOG[was] for was in order]
    if moved:
        assert broken_at(lines) == moved[0] + 1


@given(st.integers(0, len(LOG)), st.sampled_from([*LOG, *OTHER, b"\n", b"{}\n", b"[]\n", b"null\n"]), st.booleans())
def test_any_insertion_is_found_where_it_is(place: int, line: bytes, forged: bool) -> None:
    """Also that of a record which was made to follow."""
    if forged:
        head = chain.parse(LOG[place - 1].rstrip()).head if place else Head()
        line = chain.make(head, TIME, "s", "forged", {})[0] + b"\n"
    lines = [*LOG[:place], line, *LOG[place:]]
    if place == len(LOG) and forged:  # somebody has gone on writing, by the rules
        assert report(lines, HEAD).holds
        return
    # A line that could stand there is found by the next one, which follows no more.
    could_stand = forged or LOG[place : place + 1] == [line] or (place == 0 and line == OTHER[0])
    assert broken_at(lines) == place + (2 if could_stand else 1)


@given(PLACES, st.text(max_size=3))
def test_a_record_that_was_made_anew_breaks_the_chain_after_it(place: int, name: str) -> None:
    head = chain.parse(LOG[place - 1].rstrip()).head if place else Head()
    anew = chain.make(head, TIME, "s", "tool_ended", {"call": place, "tool": f"b{name}"})[0] + b"\n"
    lines = [*LOG[:place], anew, *LOG[place + 1 :]]
    found = report(lines, HEAD)
    assert found.broken is not None
    assert found.broken.line == place + 2, "or, at the end, the head that was kept is not there"


def test_a_record_that_follows_and_counts_wrongly_is_found() -> None:
    head = chain.parse(LOG[-1].rstrip()).head
    for count in (head.count - 1, head.count + 1):
        line = chain.make(Head(count, head.hash), TIME, "s", "k", {})[0] + b"\n"
        assert broken_at([*LOG, line]) == len(LOG) + 1


@given(st.lists(st.binary(max_size=200) | st.sampled_from(LOG), max_size=12))
def test_whatever_is_in_a_file_gets_a_report(lines: list[bytes]) -> None:
    found = report(line.replace(b"\n", b"") + b"\n" for line in lines)
    assert found.records <= len(lines)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"hello", "not a record"),
        (b"[" * MAX_LINE, "not a record"),
        (b'{"a":1}', "canonical"),
        (b"x" * (MAX_LINE + 1), "longer than a record can be"),
        (LOG[0].rstrip().replace(b'"call":0', b'"call": 0'), "canonical"),
        (LOG[0].rstrip().replace(b'"call":0', b'"call":1'), "has been changed"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(line: bytes, says: str) -> None:
    with pytest.raises(BrokenChain, match=says):
        chain.parse(line)
    found = report([line + b"\n"])
    assert found.broken is not None
    assert says in found.broken.reason


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": True},
        {"seq": 1.0},
        {"seq": "1"},
        {"data": []},
        {"kind": 1},
        {"time": None},
        {"sandbox": {}},
        {"prev": 0},
    ],
)
def test_a_record_of_the_wrong_types_is_none_though_its_hash_is_right(changes: dict[str, Any]) -> None:
    entry: dict[str, Any] = {"data": {}, "kind": "k", "prev": GENESIS, "sandbox": "s", "seq": 1, "time": TIME} | changes
    own = chain.digest(chain.canonical(entry))
    with pytest.raises(BrokenChain, match="not a record"):
        chain.parse(chain.canonical({**entry, "hash": own}))


# ---------------------------------------------------------------------------------------------------------- crashes


@given(st.integers(0, 7), st.data())
def test_a_torn_last_line_is_told_and_what_is_before_it_holds(place: int, data: st.DataObject) -> None:
    torn = LOG[place][: data.draw(st.integers(1, len(LOG[place]) - 2))]
    found = report([*LOG[:place], torn])
    assert found.broken is not None
    assert (found.records, found.broken.line) == (place, place + 1)
    assert "its writer died" in found.broken.reason


@given(st.integers(0, 7), st.data())
def test_a_torn_line_that_the_next_record_accounts_for_is_passed_over(place: int, data: st.DataObject) -> None:
    torn = LOG[place][: data.draw(st.integers(1, len(LOG[place]) - 2))]
    lines = recovered(LOG[:place], torn)
    found = report(lines)
    assert (found.records, found.torn, found.broken) == (place + 2, (place + 1,), None)
    for other in (torn[:-1], torn + b"x", b"{"):
        if other and other != torn:
            assert not report([*lines[:place], other + b"\n", *lines[place + 1 :]]).holds, "only for these very bytes"


def test_several_torn_lines_in_a_row_are_accounted_for_together() -> None:
    torn = LOG[3][:20] + b"\n" + LOG[3][:9]
    found = report(b"".join(recovered(LOG[:3], torn)).splitlines(keepends=True))
    assert (found.torn, found.holds) == ((4, 5), True)


def test_nothing_but_what_a_crash_leaves_can_be_accounted_for() -> None:
    found = report(recovered(LOG[:3], b"# a remark"))
    assert found.broken is not None
    assert found.broken.line == 4
    changed = LOG[3].rstrip().replace(b'"call":3', b'"call":4')
    assert not report(recovered(LOG[:3], changed)).holds, "it is whole: that was no crash"
    flood = chain.BEGINNING + b"x" * chain.MAX_TORN
    assert not report(recovered(LOG[:3], flood)).holds
