"""PRO-01, PRO-08 and TRM-01 below gRPC: frames that no library would send, endings of every kind, bombs."""

from __future__ import annotations

import gzip
import struct

import pytest
from executor_api.v1 import executor_pb2 as pb

from orchestrator.errors import ProtocolViolation, SandboxDied, SandboxStartError
from tests.hostile.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    RESPONSE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Wire,
    WireScript,
    frame,
    header,
)
from tests.hostile.oracle import BROKEN, refused
from tests.hostile.peer import finished
from tests.hostile.stage import SHORT_MARGIN, Below

NASTY = b"\x1b]0;pwned\x07\x1b[2J\xe2\x80\xae"  # a title, a cleared screen, text that runs backwards
TRAILERS = (header(b"grpc-status", b"0"),)


def then(*frames: bytes) -> WireScript:
    """Takes the code, and answers with these frames."""

    async def script(wire: Wire) -> None:
        await wire.executing()
        await wire.send(*frames)
        await wire.stall()

    return script


async def half_close(wire: Wire) -> None:
    await wire.executing()
    await wire.end(*TRAILERS)
    await wire.stall()


async def hang_up(wire: Wire) -> None:
    await wire.executing()


async def hang_up_in_a_frame(wire: Wire) -> None:
    await wire.executing()
    await wire.send(frame(DATA, 0, 1, bytes(1000))[:100])


async def answer_and_hang_up_in_the_next_message(wire: Wire) -> None:
    await wire.executing()
    await wire.send(frame(DATA, 0, 1, struct.pack(">BI", 0, 1000) + bytes(10)))


def goaway(code: int, last_stream: int = 1, text: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">II", last_stream, code) + text)


def reset(code: int) -> bytes:
    return frame(RST_STREAM, 0, 1, struct.pack(">I", code))


ENDINGS: dict[str, WireScript] = {
    "half-close with status 0": half_close,
    "hanging up": hang_up,
    "hanging up in a frame": hang_up_in_a_frame,
    "hanging up in a message": answer_and_hang_up_in_the_next_message,
    **{f"RST_STREAM {code}": then(reset(code)) for code in (0, 1, 2, 5, 7, 8, 11, 13, 0xFFFFFFFF)},
    **{f"GOAWAY {code}, the stream is lost": then(goaway(code, 0)) for code in (0, 1, 2, 11)},
    "RST_STREAM in the middle of a message": then(frame(DATA, 0, 1, struct.pack(">BI", 0, 1000) + bytes(10)), reset(2)),
    "GOAWAY that speaks to the terminal": then(goaway(2, 0, NASTY)),
}


@pytest.mark.parametrize("how", ENDINGS)
def test_pro_08_however_a_stream_ends_the_code_was_sent_once(how: str, capfd: pytest.CaptureFixture[str]) -> None:
    refused(Below(ENDINGS[how]), error=BROKEN)
    assert "\x1b" not in capfd.readouterr().err


async def accept_only(wire: Wire) -> None:
    await wire.stall()


async def settings_only(wire: Wire) -> None:
    await wire.greet()
    await wire.stall()


async def headers_only(wire: Wire) -> None:
    await wire.greet()
    await wire.hear()
    await wire.respond()
    await wire.stall()


@pytest.mark.parametrize("script", [accept_only, settings_only, headers_only], ids=lambda script: script.__name__)
def test_pro_08_who_accepts_and_says_nothing_has_failed_to_start(script: WireScript) -> None:
    refused(Below(script), error=SandboxStartError, executions=0, start_timeout=3.0)


async def stop_answering(wire: Wire) -> None:
    """Keeps the connection, and reads nothing any more."""
    await wire.executing()
    await wire.sleep()


@pytest.mark.parametrize(
    "script", [then(), then(goaway(0, 1)), stop_answering], ids=["silent", "GOAWAY and silence", "deaf"]
)
def test_pro_08_who_stalls_over_code_has_died(script: WireScript) -> None:
    assert "in time" in refused(Below(script), error=SandboxDied, margin=SHORT_MARGIN)


# ------------------------------------------------------------------------------------------------------------- bombs


def bomb() -> bytes:
    """60 MB in 60 KB."""
    return gzip.compress(bytes(60 << 20))


def compressed(*names: bytes) -> WireScript:
    """Takes the code and answers with a message that is compressed, as its headers say in their own ways."""

    async def script(wire: Wire) -> None:
        await wire.greet()
        hello = (await wire.hear()).hello
        await wire.respond(*(header(b"grpc-encoding", name) for name in names))
        await wire.say(wire.challenge(hello))
        await wire.hear()
        await wire.say(wire.ready())
        await wire.hear()
        await wire.say(bomb(), compressed=True)
        await wire.stall()

    return script


@pytest.mark.parametrize("names", [(b"identity",), ()], ids=repr)
def test_pro_01_what_is_compressed_is_refused_and_not_unpacked(names: tuple[bytes, ...]) -> None:
    refused(Below(compressed(*names)), error=BROKEN)


@pytest.mark.parametrize("name", [b"gzip", b"deflate", b"snappy", b"\xff"])
def test_pro_01_who_says_that_it_compresses_is_refused_before_it_is_sent_anything(name: bytes) -> None:
    refused(Below(compressed(name)), error=(*BROKEN, SandboxStartError), executions=0)


@pytest.mark.parametrize("size", [(4 << 20) + 1, 5 << 20, 0xFFFFFFFF])
def test_pro_01_a_message_over_the_limit_is_refused_by_its_length_alone(size: int) -> None:
    announced = then(frame(DATA, 0, 1, struct.pack(">BI", 0, size)))
    text = refused(Below(announced), error=ProtocolViolation)
    assert "RESOURCE_EXHAUSTED" in text


# ------------------------------------------------------------------------------------------------------- odd frames

FRAMES: dict[str, bytes] = {
    "no HTTP/2 at all": b"HTTP/1.1 200 OK\r\n\r\n" + NASTY,
    "noise": bytes(range(256)) * 40,
    "a frame of 16 MB": frame(DATA, 0, 1, bytes(100))[:9].replace(b"\0\0\x64", b"\xff\xff\xff") + bytes(100),
    "DATA on a stream that is not there": frame(DATA, 0, 99, bytes(10)),
    "DATA on stream 0": frame(DATA, 0, 0, bytes(10)),
    "a stream of the server's own": frame(HEADERS, END_HEADERS, 2, RESPONSE),
    "headers that cannot be read": frame(HEADERS, END_HEADERS, 1, b"\xff" * 50),
    "headers of a table index that is not there": frame(HEADERS, END_HEADERS, 1, b"\xbf"),
    "SETTINGS of a wrong length": frame(SETTINGS, 0, 0, b"12345"),
    "a window that runs over": frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 0x7FFFFFFF)) * 3,
    "a window of nothing": frame(WINDOW_UPDATE, 0, 1, bytes(4)),
    "CONTINUATION of nothing": frame(CONTINUATION, 0, 1, b"x"),
    "a message of no length, cut": frame(DATA, 0, 1, b"\0\0"),
    "an unknown compression flag": frame(DATA, 0, 1, struct.pack(">BI", 7, 3) + b"abc"),
}


@pytest.mark.parametrize("what", FRAMES)
def test_pro_04_frames_that_make_no_sense_end_in_an_error_within_the_deadline(
    what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    refused(Below(then(FRAMES[what])), error=BROKEN, margin=SHORT_MARGIN)  # some are waited for
    assert "\x1b" not in capfd.readouterr().err


# ------------------------------------------------------------------------------------------------- words of the peer


@pytest.mark.parametrize("status", [2, 8, 12, 13, 14, 16, 99])
def test_trm_01_the_details_of_a_status_cannot_drive_a_terminal(status: int, capfd: pytest.CaptureFixture[str]) -> None:
    async def script(wire: Wire) -> None:
        await wire.executing()
        told = b"".join(b"%%%02X" % byte for byte in NASTY + b"x" * 3000)  # gRPC's own escapes
        await wire.end(header(b"grpc-status", b"%d" % status), header(b"grpc-message", told))
        await wire.stall()

    text = refused(Below(script), error=BROKEN)
    assert "x" * 100 in text
    assert len(text) < 500
    assert "\x1b" not in capfd.readouterr().err


@pytest.mark.parametrize("size", [8 << 10, 64 << 10])
def test_pro_02_trailers_have_a_bound(size: int) -> None:
    async def script(wire: Wire) -> None:
        await wire.executing()
        await wire.send(
            frame(HEADERS, 0, 1, header(b"grpc-status", b"0")),
            *(frame(CONTINUATION, 0, 1, header(b"a%d" % n, b"b" * 1000)) for n in range(size >> 10)),
            frame(CONTINUATION, END_HEADERS, 1),
        )
        await wire.stall()

    refused(Below(script), error=BROKEN)


def test_a_message_in_many_frames_is_one_message() -> None:
    """The player of these scripts is understood: what fails above does not fail for its own faults."""

    async def script(wire: Wire) -> None:
        execution = await wire.executing()
        outcome = pb.Outcome(text=b"x" * 3000).SerializeToString()
        data = finished(execution, outcome=outcome).SerializeToString()
        body = struct.pack(">BI", 0, len(data)) + data
        for at in range(0, len(body), 7):
            await wire.send(frame(DATA, 0, 1, body[at : at + 7]))
        await wire.hear()

    async def act(sandbox: object) -> None:
        assert (await sandbox.run_code("1")).ok  # type: ignore[attr-defined]
        await sandbox.run_code("2")  # type: ignore[attr-defined]

    refused(Below(script), act, SandboxDied, executions=2)
