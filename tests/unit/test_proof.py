"""Host and container share no code: what both sides repeat is held together here."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from executor_api.v1 import executor_pb2 as pb
from hypothesis import given, settings
from hypothesis import strategies as st

from executor_image import frames
from executor_image.launcher import __main__ as launcher
from executor_image.launcher import warden
from executor_image.runner import media as runner_media
from executor_image.runner import portable as runner_portable
from executor_image.runner import values as runner_values
from executor_image.runner import workspace
from executor_image.supervisor import container as supervisor_container
from executor_image.supervisor import executing, outbox, server
from executor_image.supervisor import execution as supervisor_execution
from executor_image.supervisor import session as supervisor_session
from executor_image.supervisor import states as supervisor_states
from orchestrator import config, events, media, policy
from orchestrator.sandbox import (
    channel,
    execution,
    files,
    folders,
    grants,
    invocation,
    isolation,
    lockdown,
    portable,
    session,
    state,
    values,
)

MESSAGE_OVERHEAD = 4 << 10  # tags, lengths, numbers, a reason


@settings(max_examples=60)
@given(st.binary(min_size=32, max_size=32), st.sampled_from([b"host", b"executor"]), st.lists(st.binary(), max_size=3))
def test_both_sides_prove_the_token_alike(token: bytes, label: bytes, nonces: list[bytes]) -> None:
    mine, theirs = channel.proof(token, label, *nonces), server.proof(token, label, *nonces)
    assert mine == theirs == hmac.new(token, label + b"".join(nonces), hashlib.sha256).digest()


def test_a_proof_is_of_its_token_its_label_and_each_nonce() -> None:
    session_id, host, executor = bytes(16), bytes(32), b"\1" * 32
    proofs = {
        channel.proof(bytes(32), b"host", session_id, host, executor),
        channel.proof(b"\1" * 32, b"host", session_id, host, executor),
        channel.proof(bytes(32), b"executor", session_id, host, executor),
        channel.proof(bytes(32), b"host", b"\1" * 16, host, executor),
        channel.proof(bytes(32), b"host", session_id, executor, host),
    }
    assert len(proofs) == 5


@pytest.mark.parametrize(
    ("host", "container"),
    [
        (channel.PROTOCOL_VERSION, server.PROTOCOL_VERSION),
        (channel.MAX_MESSAGE, server.MAX_MESSAGE),
        (channel._NONCE_BYTES, server.NONCE_BYTES),
        (folders.SOCKET_NAME, "executor.sock"),
        (lockdown.SOCKET_MOUNT, str(server.SOCKET_DIR)),
        (execution.MAX_CODE, frames.MAX_CODE),
        (session.MAX_TOOL_NAME, frames.MAX_NAME),
        (session.MAX_OUTCOME, frames.MAX_OUTCOME),
        (session.MAX_FILE_ENTRIES, frames.MAX_FILES),
        (session.MAX_OUTPUT_TEXT, outbox.MAX_MESSAGE_TEXT),
        (session.MAX_REASON, frames.MAX_REASON),
        (session.MAX_ERROR, supervisor_states.MAX_ERROR),
        (state.MAX_NAME, supervisor_states.MAX_NAME),
        (files.PIECE, frames.MAX_FILE_PIECE),
        (values.MAX_BYTES, frames.MAX_VALUE),
        (values.MAX_DEPTH, runner_values.MAX_DEPTH),
        (values.MAX_NODES, runner_values.MAX_NODES),
        (portable.MAX_INT_BYTES, runner_values.MAX_INT_BYTES),
        (portable.MAX_DECIMAL_CHARS, runner_values.MAX_DECIMAL_CHARS),
        (set(portable.ITEM_SIZES), set(runner_portable.DTYPES)),
        (dict(portable.FORMATS), runner_media._FORMATS),
        (media.MIME_TYPES, set(runner_media._FORMATS)),
        (grants.MAX_DOC, 64 << 10),
        (invocation.MAX_MESSAGE, 8 << 10),
    ],
)
def test_what_both_sides_repeat_agrees(host: object, container: object) -> None:
    assert host == container


def test_workspaces_are_places_that_may_be_written_and_everybody_means_the_same() -> None:
    assert {workspace.WORKSPACE, workspace.BRANCHES} <= isolation.WRITABLE_TMPFS
    assert launcher.WORKSPACE == launcher.RUNNER_ENV["HOME"] == workspace.WORKSPACE
    assert warden.BRANCHES == workspace.BRANCHES


def test_the_paths_that_the_executor_is_told_are_few_enough() -> None:
    assert max(len(lockdown.MASKED_PATHS), len(lockdown.READONLY_PATHS)) <= 200  # as executor.proto has it


def test_the_host_waits_for_a_state_request_longer_than_the_executor_does() -> None:
    forking = supervisor_session.FORK_DEADLINE  # a fork that is under way is waited for first
    assert forking + supervisor_states.STATE_DEADLINE <= state.STATE_DEADLINE


def test_every_checkpoint_that_is_kept_can_be_listed() -> None:
    assert lockdown.STATES < session.MAX_CHECKPOINTS
    most = config.Limits(checkpoints=32).checkpoints + supervisor_container.MAX_PINNED
    assert most <= session.MAX_CHECKPOINTS
    info = pb.CheckpointInfo(
        number=2**32 - 1,
        name=bytes(state.MAX_NAME),
        execution=2**64 - 1,
        has_parent=True,
        parent=2**64 - 1,
        age_seconds=1e9,
        memory_bytes=2**64 - 1,
        has_files=True,
        current=True,
    )
    reply = pb.StateReply(checkpoints=[info] * session.MAX_CHECKPOINTS, files_reason=bytes(session.MAX_REASON))
    reply.error = "€" * session.MAX_ERROR
    assert reply.ByteSize() + session.ENVELOPE <= session.MAX_SIZES["state_reply"] < channel.MAX_MESSAGE


def test_the_host_has_a_word_for_every_status_state_and_stream_of_the_wire() -> None:
    def said(enum: object) -> set[int]:
        return set(enum.values()) - {0}  # type: ignore[attr-defined]

    assert set(execution._STATUS) == said(pb.Finished.Status)
    assert set(execution._STATE) == said(pb.Finished.State)
    assert set(execution._STREAMS) == said(pb.Output.Stream) == set(executing._STREAM.values())
    assert set(execution._STATUS.values()) == set(events.Status) - {events.Status.REFUSED}  # which is the host's own
    assert set(execution._STATE.values()) == set(events.State)
    assert set(grants._KINDS.values()) == said(pb.Parameter.Kind)


def test_the_supervisor_has_a_status_for_every_outcome_of_a_runner() -> None:
    outcomes = {value for name, value in vars(frames).items() if name.startswith("OUTCOME_")}
    assert set(executing._STATUS) == outcomes


def test_every_largest_message_of_an_executor_fits_through_grpc() -> None:
    largest = [
        frames.FROM_RUNNER[frames.RESULT][1],  # with a final answer beside it only if both fit; see Executing._finish
        frames.FROM_RUNNER[frames.FINAL][1],
        frames.FROM_RUNNER[frames.TOOL_CALL][1],
        frames.FROM_RUNNER[frames.FILE_REPLY][1],
        outbox.MAX_MESSAGE_TEXT,
    ]
    assert [size for size in largest if size + MESSAGE_OVERHEAD > channel.MAX_MESSAGE] == []


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("output", outbox.MAX_MESSAGE_TEXT),
        ("tool_call", frames.MAX_NAME + frames.MAX_VALUE),
        ("finished", frames.MAX_OUTCOME + frames.MAX_REASON),
        ("file_reply", frames.FROM_RUNNER[frames.FILE_REPLY][1]),
        ("challenge", 2 * 32),
        ("attached", 0),
    ],
)
def test_every_largest_message_of_an_executor_is_within_the_size_of_its_kind(kind: str, content: int) -> None:
    assert content + session.ENVELOPE // 2 <= session.MAX_SIZES[kind] <= channel.MAX_MESSAGE


def test_every_largest_message_of_the_host_fits_through_grpc_and_into_its_frame() -> None:
    assert max(frames.MAX_CODE + values.MAX_BYTES, files.PIECE) + MESSAGE_OVERHEAD <= channel.MAX_MESSAGE
    assert frames.TO_RUNNER[frames.TOOL_RESULT][1] >= values.MAX_BYTES
    assert frames.TO_RUNNER[frames.EXECUTE][1] >= frames.MAX_CODE + values.MAX_BYTES
    assert frames.TO_RUNNER[frames.FILE][1] >= 4096 + files.PIECE
    assert 6 * grants.MAX_SPECS <= frames.MAX_SETUP  # JSON writes one byte as six at the most


def test_the_largest_setup_fits_through_grpc() -> None:
    rules = policy.MAX_IMPORT_RULES * policy.MAX_RULE_LENGTH
    assert grants.MAX_SPECS + rules + MESSAGE_OVERHEAD <= channel.MAX_MESSAGE


def test_a_piece_of_output_fits_into_one_message_and_the_smallest_cap_is_sane() -> None:
    assert frames.MAX_PIECE <= outbox.MAX_MESSAGE_TEXT
    assert config.Limits(output="1k")
    assert supervisor_execution.MIN_CHARGE * 2 <= 1 << 10
