"""The chain of records: canonical JSON, each with the hash of the one before it and with its own. No I/O.

A line is ``{"data":…,"hash":…,"kind":…,"prev":…,"sandbox":…,"seq":…,"time":…}``: keys sorted, no spaces, ASCII.
``hash`` is the SHA-256 of the same object without ``hash``; ``prev`` is the ``hash`` of the line before, or zeros.
So a changed, missing, added or moved line breaks the chain there. What the chain alone cannot tell is that its end was
cut off, or that somebody wrote all of it anew: for that, keep a ``Report.head`` elsewhere and ask for it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

GENESIS = "0" * 64
MAX_LINE = 16 << 10  # bytes; a record has few fields, each of a bounded size (records.py)
MAX_TORN = 4 * MAX_LINE  # bytes that crashes may leave behind in a row: more is no crash
RECOVERED = "recovered"  # the kind of the record that accounts for what a crash left behind
# What every record begins with, as its keys are sorted: a torn one begins like this or ends in the midst of it.
BEGINNING = b'{"data":'
_KEYS = {"data", "hash", "kind", "prev", "sandbox", "seq", "time"}


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain has come to: how many records, and the hash of the last."""

    count: int = 0
    hash: str = GENESIS


@dataclass(frozen=True, slots=True)
class Record:
    """One line. ``seq`` counts from 1; ``time`` is UTC by the clock of the machine that wrote it."""

    seq: int
    time: str
    sandbox: str
    kind: str
    data: Mapping[str, Any]
    hash: str
    prev: str

    @property
    def head(self) -> Head:
        """The chain's head once this record is its last."""
        return Head(self.seq, self.hash)


@dataclass(frozen=True, slots=True)
class Broken:
    """The first line, counted from 1, that does not follow from those before it."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a log was found to be.

    Attributes:
        records: that hold, up to the first broken line.
        head: hash of the last of them.
        torn: lines that a crash cut short, each accounted for by the record after it.
        broken: where the chain breaks; None if it holds to its end.
    """

    records: int
    head: str
    torn: tuple[int, ...] = ()
    broken: Broken | None = None

    @property
    def holds(self) -> bool:
        """True if nothing is wrong."""
        return self.broken is None


class BrokenChain(Exception):
    """A line is not the record that must follow."""


def canonical(value: Any) -> bytes:
    """The one way to write ``value`` as JSON.

    Raises:
        ValueError, TypeError: JSON has no word for it.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def digest(data: bytes) -> str:
    """SHA-256, as it is written in a record."""
    return hashlib.sha256(data).hexdigest()


def make(head: Head, time: str, sandbox: str, kind: str, data: Mapping[str, Any]) -> tuple[bytes, Head]:
    """The line of the next record, without its line end, and the head after it.

    Raises:
        ValueError: it would be too long to be read back.
    """
    seq = head.count + 1
    entry = {"data": data, "kind": kind, "prev": head.hash, "sandbox": sandbox, "seq": seq, "time": time}
    own = digest(canonical(entry))
    line = canonical({**entry, "hash": own})
    if len(line) > MAX_LINE:
        raise ValueError(f"a record of {len(line):,} bytes; at most {MAX_LINE:,}")
    return line, Head(seq, own)


def parse(line: bytes) -> Record:
    """The record of one line, which holds in itself; of what comes before it nothing is known here.

    Raises:
        BrokenChain: it is no record, or has been changed.
    """
    if len(line) > MAX_LINE:
        raise BrokenChain("longer than a record can be")
    try:
        entry = json.loads(line)
        if not isinstance(entry, dict) or set(entry) != _KEYS or canonical(entry) != line:
            raise BrokenChain("not a record in its canonical form")
    except (ValueError, RecursionError):
        raise BrokenChain("not a record") from None
    own = entry.pop("hash")
    if own != digest(canonical(entry)):
        raise BrokenChain("its hash is not that of what it says: it has been changed")
    texts = (entry["kind"], entry["prev"], entry["sandbox"], entry["time"])
    if type(entry["seq"]) is not int or type(entry["data"]) is not dict or any(type(text) is not str for text in texts):
        raise BrokenChain("not a record")
    return Record(hash=own, **entry)


def follow(head: Head, line: bytes) -> Record:
    """The record of a line, if it is the one that follows ``head``.

    Raises:
        BrokenChain: it is not.
    """
    record = parse(line)
    if record.seq != head.count + 1:
        raise BrokenChain(f"record {record.seq} where {head.count + 1} must follow: one is missing, added or moved")
    if record.prev != head.hash:
        raise BrokenChain("it does not follow from the record before it: one has been replaced")
    return record


def walk(lines: Iterable[bytes]) -> Iterator[tuple[int, Record | Broken]]:
    """The lines' numbers and records in order, and one Broken at the first line that does not follow.

    Lines that a crash cut short are passed over if the record after them accounts for exactly these bytes.

    Args:
        lines: with their line ends, as a file gives them.
    """
    head, torn, problem = Head(), b"", None
    for number, raw in enumerate(lines, 1):
        try:
            record = follow(head, raw.removesuffix(b"\n"))
        except BrokenChain as error:
            torn, problem = torn + raw, problem or Broken(number, str(error))
            if len(torn) > MAX_TORN or not may_be_torn(raw):
                break
            continue
        if problem and not _accounts_for(record, torn.removesuffix(b"\n")):
            break
        head, torn, problem = record.head, b"", None
        yield number, record
    if problem:
        yield problem.line, _torn_or(problem, torn)


def may_be_torn(data: bytes) -> bool:
    """Whether crashes in the midst of writing records could have left this behind, a line each; or nothing at all."""
    return not data or all(map(_is_beginning, data.removesuffix(b"\n").split(b"\n")))


def _is_beginning(line: bytes) -> bool:
    """The beginning of a record, and not all of one: what is whole and does not hold has been changed."""
    if not line.startswith(BEGINNING):
        return line != b"" and BEGINNING.startswith(line)
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False


def _accounts_for(record: Record, torn: bytes) -> bool:
    return record.kind == RECOVERED and record.data.get("torn_sha256") == digest(torn)


def _torn_or(problem: Broken, torn: bytes) -> Broken:
    """A last line without its end was being written when its writer died, most likely."""
    if b"\n" in torn or not may_be_torn(torn):
        return problem
    return Broken(problem.line, "incomplete: its writer died while it wrote. The next record will account for it")


def report(lines: Iterable[bytes], head: str = "") -> Report:
    """What is to be said of a log.

    Args:
        lines: with their line ends.
        head: a ``Report.head`` of before; a log that does not hold that record any more has lost its end.
    """
    records, last, at, seen = 0, GENESIS, 0, head in ("", GENESIS)
    torn: list[int] = []
    for number, found in walk(lines):
        if isinstance(found, Broken):
            return Report(records, last, tuple(torn), found)
        torn += range(at + 1, number)
        records, last, at = found.seq, found.hash, number
        seen = seen or found.hash == head
    if not seen:
        gone = Broken(at + 1, f"the log does not hold the record {head[:64]!r}: its end is gone, or it is another log")
        return Report(records, last, tuple(torn), gone)
    return Report(records, last, tuple(torn))
