"""What an executor may lie about an execution: how it ended, and its output. A violation or plain data, in time."""

from __future__ import annotations

import math

import pytest
from executor_api.v1 import executor_pb2 as pb

from orchestrator.config import Limits
from orchestrator.errors import ProtocolViolation
from orchestrator.events import Execution, Logs, State
from orchestrator.sandbox import AsyncSandbox
from orchestrator.sandbox.execution import MAX_BUNDLES, MAX_MIME, MAX_REASON_SHOWN
from orchestrator.sandbox.session import MAX_OUTCOME, MAX_REASON
from tests.hostile.lies import HUGE, NASTY, ends, told
from tests.hostile.oracle import in_stage, refused
from tests.hostile.peer import Peer, finished, output
from tests.hostile.stage import Stage

# ---------------------------------------------------------------------------------------------------- how it ended

LYING_ENDS: dict[str, pb.ExecutorMessage] = {
    **{f"status {n}": finished(1, status=n) for n in (0, 9, -1, 2**31 - 1)},
    **{f"state {n}": finished(1, state=n) for n in (0, 4, -1, 2**31 - 1)},
    "restored to what has not been": finished(1, status=7, state=2, restored_to=2),
    "restored to the end of time": finished(1, status=7, state=2, restored_to=HUGE),
    **{f"wall {s}": finished(1, usage=pb.Usage(wall_seconds=s)) for s in (math.nan, math.inf, -math.inf, -1.0)},
    **{f"cpu {s}": finished(1, usage=pb.Usage(cpu_seconds=s)) for s in (math.nan, math.inf, -1e-9)},
    "a long reason for the files": finished(1, files_reason=bytes(MAX_REASON + 1)),
    "an outcome that is none": finished(1, outcome=b"\xff"),
    "a final answer that is none": finished(1, final_answer=b"\xff"),
    "a final answer of nothing": finished(1, final_answer=b"\x9a\x06\x00"),
    "too much outcome": finished(1, outcome=bytes(MAX_OUTCOME + 1)),
    "outcome and answer, together too much": finished(1, outcome=bytes(2 << 20), final_answer=bytes(2 << 20)),
}


@pytest.mark.parametrize("lie", LYING_ENDS)
def test_an_end_that_cannot_be_is_a_violation(lie: str) -> None:
    refused(ends(LYING_ENDS[lie]), error=ProtocolViolation)


def test_amounts_that_can_be_are_told_as_they_are() -> None:
    usage = pb.Usage(wall_seconds=1e300, cpu_seconds=0, peak_memory_bytes=HUGE, output_bytes=HUGE, tool_calls=2**32 - 1)
    execution = told(finished(1, usage=usage, dropped_bytes=HUGE))
    assert (execution.usage.wall_seconds, execution.usage.peak_memory_bytes) == (1e300, HUGE)
    assert execution.logs.dropped_bytes == HUGE


def test_an_end_with_every_text_hostile_has_an_error_of_plain_text_and_plain_reasons() -> None:
    failure = pb.Failure(type_name=NASTY, message=NASTY, traceback=NASTY)
    outcome = pb.Outcome(error=failure, text=NASTY).SerializeToString()
    reason = NASTY.decode("utf-8", "ignore")
    execution = told(finished(1, status=7, state=3, outcome=outcome, reason=reason, files_reason=NASTY))
    assert execution.error is not None
    assert execution.error.name == "ProcessDied"
    for text in (execution.error.value, execution.files_reason):
        assert text.isprintable()
        assert len(text) < MAX_REASON_SHOWN + 200
    assert execution.error.traceback == NASTY.decode("utf-8", "replace")  # the code's own, as it is: not shown by us


def test_a_mime_type_is_one_short_line_and_bundles_have_a_bound() -> None:
    part = pb.MimeData(mime=NASTY * 10, data=NASTY)
    bundles = [pb.Bundle(data=[part] * 40)] * 40
    outcome = pb.Outcome(results=[pb.Bundle(data=[pb.MimeData(mime=b"image/svg+xml", data=NASTY)]), *bundles])
    execution = told(finished(1, outcome=outcome.SerializeToString()))
    assert len(execution.results) == MAX_BUNDLES
    assert execution.results[0] == {"image/svg+xml": NASTY.decode("utf-8", "replace")}  # a script can hide in it: text
    for bundle in execution.results:
        assert all(mime.isprintable() and len(mime) <= MAX_MIME for mime in bundle)


# ---------------------------------------------------------------------------------------------------------- output


def test_trm_04_output_is_text_and_the_bytes_are_to_be_had() -> None:
    pieces = [b"a\xff", "ä".encode()[:1], "ä".encode()[1:], b"\xed\xa0\x80", b"\xe2\x82"]  # a surrogate, a cut end
    execution = told(*(output(1, piece) for piece in pieces), output(1, NASTY, stream=2), finished(1))
    assert execution.logs.raw_stdout == b"".join(pieces)
    assert execution.logs.raw_stderr == NASTY
    assert execution.logs.stdout == b"".join(pieces).decode("utf-8", "replace")


def test_the_bytes_of_plain_text_are_not_kept_twice() -> None:
    execution = told(output(1, "Grüße".encode()), finished(1))
    assert execution.logs == Logs("Grüße")
    assert execution.logs.undecoded is None
    assert execution.logs.raw_stdout == "Grüße".encode()


def test_what_was_left_out_is_marked_in_the_text_and_not_in_the_bytes() -> None:
    execution = told(output(1, b"head\xc3"), output(1, b"\xa4tail", dropped=7), finished(1, dropped_bytes=7))
    assert execution.logs.stdout == "head\ufffd\n… [7 bytes of output dropped] …\n\ufffdtail"
    assert execution.logs.raw_stdout == b"head\xc3\xa4tail"


def test_what_is_streamed_is_what_is_kept() -> None:
    async def play(scene: Stage) -> tuple[str, str]:
        pieces = [output(1, "ä€".encode()[at : at + 1]) for at in range(5)] + [output(1, b"\xc3"), output(1, b"x")]
        async with scene.sandbox(ends(*pieces, output(1, b"y", dropped=3), finished(1))) as sandbox:
            seen: list[str] = []
            execution = await sandbox.run_code("1", on_stdout=seen.append)
            return "".join(seen), execution.logs.stdout

    seen, kept = in_stage(play)
    assert seen == kept == "ä€\ufffdx\n… [3 bytes of output dropped] …\ny"


@pytest.mark.parametrize(
    "piece",
    [output(1, b""), output(1, b"x", stream=0), output(1, b"x", stream=3), output(1, bytes((256 << 10) + 1))],
    ids=["empty", "of no stream", "of a third stream", "too long"],
)
def test_a_piece_of_output_that_cannot_be_is_a_violation(piece: pb.ExecutorMessage) -> None:
    refused(ends(piece), error=ProtocolViolation)


def test_gaps_in_the_output_count_towards_its_cap() -> None:
    async def script(peer: Peer) -> None:
        await peer.executing()
        while True:
            await peer.say(output(1, b"x", dropped=HUGE))

    text = refused(script, error=ProtocolViolation, limits=Limits(output="64k"))
    assert "more output than its cap" in text


# ------------------------------------------------------------------------------------------------------ afterwards


def test_a_lie_told_while_nobody_listens_any_more_costs_the_sandbox() -> None:
    """The caller has left; what is still read is judged all the same."""

    async def leave(sandbox: AsyncSandbox) -> None:
        events = sandbox.stream("1")
        await anext(events)
        await events.aclose()
        await sandbox.run_code("2")

    assert "reset" in refused(ends(output(1), finished(1, status=77)), leave)


def test_a_spent_executor_is_replaced_and_its_lie_about_that_gains_it_nothing() -> None:
    async def play(scene: Stage) -> tuple[Execution, int]:
        script = ends(finished(1, state=3, spent=True))
        sandbox = scene.sandbox(script, ends(finished(1)))
        try:
            first = await sandbox.run_code("1")
            await sandbox.run_code("2")
            return first, len(scene.played)
        finally:
            await sandbox.close()

    first, containers = in_stage(play)
    assert (first.state, containers) == (State.LOST, 2)
