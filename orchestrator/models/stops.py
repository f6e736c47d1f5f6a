"""Where a reply ends: stop sequences, enforced here because not every endpoint knows them. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST_STREAM = 3600.0  # seconds; the longest answers of reasoning models take some minutes
# Seconds that a stream is still read after a stop sequence: a model that ends there by itself tells its usage at once,
# one that does not know where to end is left to itself.
AFTER_STOP = 1.0


def cut_at_stop(text: str, stop_sequences: Sequence[str]) -> str:
    """``text`` up to the first stop sequence in it: what an endpoint that knows ``stop`` would have sent.

    An empty stop sequence is in no text.
    """
    ends = [at for stop in stop_sequences if stop and (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


class StopFilter:
    """``cut_at_stop`` for a text that comes in pieces.

    Text that may be the beginning of a stop sequence is held back until it is known what it is. All that ``feed``
    gives, and ``rest`` after it, is together what ``cut_at_stop`` gives of the whole text, however it was split.

    Attributes:
        stopped: a stop sequence has come; nothing is given any more.
    """

    def __init__(self, stop_sequences: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stop_sequences if stop)
        self._held = ""
        self.stopped = False

    def feed(self, piece: str) -> str:
        """What is certain, after this further piece, to lie before every stop sequence."""
        if self.stopped:
            return ""
        text = self._held + piece
        known, certain = cut_at_stop(text, self._stops), self._certain(text)
        # A stop sequence that is there already ends the text, unless one that began before it may still be completed.
        self.stopped = len(known) < len(text) and len(known) <= certain
        end = len(known) if self.stopped else certain
        self._held = "" if self.stopped else text[end:]
        return text[:end]

    def rest(self) -> str:
        """What was held back, once no piece is left."""
        held, self._held = self._held, ""
        return cut_at_stop(held, self._stops)

    def _certain(self, text: str) -> int:
        """How much of ``text`` comes before anything at its end that may be the beginning of a stop sequence."""
        return len(text) - max((_overlap(text, stop) for stop in self._stops), default=0)


def _overlap(text: str, stop: str) -> int:
    """The longest end of ``text`` that ``stop`` begins with, without being the whole of it."""
    longest = min(len(stop) - 1, len(text))
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
