"""The service's log: lines for machines, bounded, with ids, and without any secret."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from orchestrator_api.v1 import orchestrator_pb2 as pb
from orchestrator_api.v1 import orchestrator_pb2_grpc as rpc

from orchestrator.credentials import REDACTED, redacted, secret_values
from orchestrator.errors import ServiceError
from orchestrator.service import logs
from orchestrator.service.access import Access
from orchestrator.service.app_tools import Place, place
from orchestrator.service.logs import JsonLines, logging_to
from tests.unit.service_parts import MemoryTokens, bearer, run, serving

LOG = logging.getLogger("orchestrator.service.test")
BEARER = "cbk_" + "Bearer7Canary" * 3 + "abcd"
OPENAI = "sk-proj-OpenAiCanary0123456789abcdefABCDEF"
PLAIN = "PlainCanaryWithoutAnyForm"
PASSWORD = "UrlCanary99"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


# -------------------------------------------------------------------------------------------------------------- secrets


def _raise_quoting() -> None:
    try:
        raise ConnectionError(f"401 from https://user:{PASSWORD}@models.example/v1 with api_key='{PLAIN}-1'")
    except ConnectionError as error:
        raise RuntimeError(f"Incorrect API key provided: {OPENAI}. {{'x-api-key': '{PLAIN}-2'}}") from error


def test_none_of_the_planted_secrets_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "service.jsonl"
    with logging_to(path, env={"MODEL_KEY": f"{PLAIN}-env", "HOME": "/home/user"}):
        LOG.info("call with authorization: Bearer %s", BEARER)
        LOG.info("headers %s", {"Authorization": f"Bearer {PLAIN}-3", "api-key": f"{PLAIN}-4"})
        LOG.info("token %s, model said %r", BEARER, f"the key is {OPENAI}")
        LOG.warning("the environment's: %s in /home/user", f"{PLAIN}-env")
        LOG.info(f"password={PLAIN}-5&next=1; https://a:{PASSWORD}@b/")
        try:
            _raise_quoting()
        except RuntimeError:
            LOG.exception("a run failed")
    text = path.read_text()
    for secret in (BEARER, BEARER[4:], OPENAI, OPENAI[8:], PLAIN, PASSWORD):
        assert secret not in text
    assert text.count(REDACTED) >= 9
    error = lines(path)[-1]["error"]
    assert "ConnectionError: 401 from https[redacted]models.example/v1 with" in error
    assert "RuntimeError: Incorrect API key provided: [redacted]." in error
    assert "_raise_quoting" in error  # what helps stays
    assert "in /home/user" in lines(path)[3]["message"]


def test_what_the_service_logs_of_a_call_has_not_its_token(tmp_path: Path) -> None:
    class Failing(rpc.SandboxesServicer):
        async def List(self, request: Any, context: Any) -> Any:
            raise ValueError(f"with {dict(context.invocation_metadata())}")

    async def test() -> None:
        kept = MemoryTokens()
        kept.put(BEARER, "app", "sandboxes")

        def more(server: grpc.aio.Server) -> None:
            rpc.add_SandboxesServicer_to_server(Failing(), server)

        async with serving(tmp_path, Access(kept), more=[more]) as served, served.remote() as channel:
            stub = rpc.SandboxesStub(channel)
            for call in (
                stub.List(pb.ListSandboxes(), metadata=bearer(BEARER)),
                stub.List(pb.ListSandboxes(), metadata=bearer(BEARER[:-1] + "x")),
            ):
                with pytest.raises(grpc.aio.AioRpcError):
                    await call

    with logging_to(tmp_path / "log", env={}):
        run(test())
    text = (tmp_path / "log").read_text()
    assert BEARER[4:-1] not in text
    denied, failed = sorted(
        lines(tmp_path / "log"), key=lambda line: "error" in line
    )  # gRPC logs after it has answered
    assert "ValueError: with {" in failed["error"]
    assert denied["message"] == "refused /orchestrator_api.v1.Sandboxes/List from 127.0.0.1: bad_token"


@pytest.mark.parametrize(
    "text",
    [
        "the run took 12 steps and 300 tokens: fine",
        "max_tokens=4096",
        "key_name: default",
        "a task of https://example.org/a?b=c",
        "secret: none",
        "Bearer of good news",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


def test_the_secrets_of_an_environment_are_known_by_name_or_form() -> None:
    env = {"OPENAI_API_KEY": "abc", "PATH": "/bin", "X": OPENAI, "EMPTY_TOKEN": "", "HF_TOKEN": "short"}
    assert secret_values(env) == {"abc", OPENAI, "short"}
    assert redacted("abc short shorter", secret_values(env)) == "abc short shorter"  # words, as far as anybody knows


def test_a_password_without_a_user_is_found() -> None:
    assert redacted(f"redis://:{PASSWORD}@host/0") == "redis[redacted]host/0"


@pytest.mark.parametrize(
    "part", ["://", "://:", ":", "://a:b", "token=", "api_key", "token ", "Bearer  ", "sk-", '"', "key:"]
)
def test_hostile_text_takes_no_time(part: str) -> None:
    started = time.process_time()
    redacted("://" + part * (128 * 1024 // len(part)))
    assert time.process_time() - started < 2  # quadratic would be minutes


@settings(max_examples=60)
@given(st.text(max_size=300), st.text(max_size=300))
def test_a_token_is_found_wherever_it_stands_alone(before: str, after: str) -> None:
    assert BEARER[4:] not in redacted(f"{before} {BEARER} {after}")


# ---------------------------------------------------------------------------------------------------------------- lines


@settings(max_examples=60)
@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=200))
def test_a_record_is_one_line_of_ascii_whatever_is_in_it(text: str) -> None:
    record = logging.LogRecord("a", logging.INFO, "f", 1, "%s", (text + "\r\n\x1b[2J\u2028",), None)
    line = JsonLines().format(record)
    assert line.isascii()
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    assert "\x1b[2J" in json.loads(line)["message"]


def test_long_parts_are_cut_and_of_a_traceback_the_end_stays(tmp_path: Path) -> None:
    with logging_to(tmp_path / "log"):
        try:
            raise ValueError("x" * 10**6 + "the end")
        except ValueError:
            LOG.exception("m" * 10**6)
    (line,) = lines(tmp_path / "log")
    assert line["message"] == "m" * logs.MAX_MESSAGE
    assert len(line["error"]) == logs.MAX_ERROR
    assert line["error"].endswith("the end\n")


def test_a_secret_at_the_cut_is_not_left_in_half(tmp_path: Path) -> None:
    with logging_to(tmp_path / "log"):
        LOG.info("x" * (logs.MAX_MESSAGE - 15) + " " + OPENAI)
    (line,) = lines(tmp_path / "log")
    assert line["message"].endswith(" [redacted]")


def test_arguments_that_do_not_fit_or_cannot_be_shown_lose_no_record() -> None:
    class Odd:
        def __str__(self) -> str:
            raise ValueError("no words")

    records: list[tuple[Any, tuple[Any, ...]]] = [
        ("one %s", (Odd(),)),
        ("two %d", ("x",)),
        ("three %s %s", ("x",)),
        (Odd(), ()),
    ]
    made = [logging.LogRecord("a", logging.INFO, "f", 1, message, args, None) for message, args in records]
    assert [json.loads(JsonLines().format(record))["message"] for record in made] == [
        "one %s (ValueError while its arguments were put in)",
        "two %d (TypeError while its arguments were put in)",
        "three %s %s (TypeError while its arguments were put in)",
        f"<{Odd.__qualname__}> (ValueError while its arguments were put in)",
    ]


# ------------------------------------------------------------------------------------------------------------------ ids


def test_a_line_has_the_ids_of_what_it_is_about(tmp_path: Path) -> None:
    async def work(run_id: str, ready: asyncio.Barrier) -> None:
        place.set(Place(run=run_id))
        await ready.wait()
        LOG.info("works")
        place.set(Place(run=run_id, sandbox=f"s-{run_id}"))
        await asyncio.create_task(inner())
        await asyncio.to_thread(LOG.info, "in a thread")

    async def inner() -> None:
        LOG.info("inside")

    async def test() -> None:
        ready = asyncio.Barrier(3)
        await asyncio.gather(*(work(name, ready) for name in "abc"))
        LOG.info("about nothing")

    with logging_to(tmp_path / "log"):
        run(test())
    found = lines(tmp_path / "log")
    assert "run" not in found[-1]
    assert "sandbox" not in found[-1]
    for name in "abc":
        about_it = [(line["message"], line.get("sandbox")) for line in found if line.get("run") == name]
        assert about_it == [("works", None), ("inside", f"s-{name}"), ("in a thread", f"s-{name}")]


def test_what_a_run_or_an_execution_logs_has_its_id(tmp_path: Path) -> None:
    async def test(here: Place) -> None:
        place.set(here)
        LOG.info("works")

    with logging_to(tmp_path / "log"):
        run(test(Place(run="r1")))
        run(test(Place(sandbox="s1")))
    first, second = lines(tmp_path / "log")
    assert (first["run"], second["sandbox"]) == ("r1", "s1")
    assert "sandbox" not in first
    assert "run" not in second


# ---------------------------------------------------------------------------------------------------------------- files


def test_files_are_bounded_and_for_this_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_FILE", 2000)
    old = os.umask(0)
    try:
        with logging_to(tmp_path / "log"):
            for number in range(200):
                LOG.info("number %d", number)
    finally:
        os.umask(old)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["log", "log.1", "log.2", "log.3", "log.4"]
    assert all(file.stat().st_size <= 2000 and file.stat().st_mode & 0o777 == 0o600 for file in files)
    assert lines(tmp_path / "log")[-1]["message"] == "number 199"
    numbers = [int(line["message"].split()[1]) for file in reversed(files) for line in lines(file)]
    assert numbers == list(range(numbers[0], 200))


def test_threads_do_not_mix_their_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_FILE", 100_000)
    with logging_to(tmp_path / "log"):
        threads = [
            threading.Thread(target=lambda: [LOG.info("x" * 200) for _ in range(50)], daemon=True) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert [line["message"] for line in lines(tmp_path / "log")] == ["x" * 200] * 200


def test_a_link_in_the_files_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "other")
    with pytest.raises(ServiceError, match="cannot be written"), logging_to(tmp_path / "log"):
        pytest.fail("it was opened")
    assert not (tmp_path / "other").exists()


def test_afterwards_logging_is_as_it_was(tmp_path: Path) -> None:
    root, ours = logging.getLogger(), logging.getLogger("orchestrator")
    before = list(root.handlers), root.level, ours.level
    with logging_to(tmp_path / "log", logging.DEBUG):
        assert ours.isEnabledFor(logging.DEBUG)
        assert not logging.getLogger("httpx").isEnabledFor(logging.INFO)
        LOG.debug("detail")
    assert (list(root.handlers), root.level, ours.level) == before
    assert [line["level"] for line in lines(tmp_path / "log")] == ["debug"]


def test_a_full_disk_is_told_once_and_without_what_was_to_be_written() -> None:
    program = f"""
import logging, pathlib
from orchestrator.service.logs import logging_to
with logging_to(pathlib.Path("/dev/full")):
    for _ in range(3):
        logging.getLogger("orchestrator").error("{PLAIN}")
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ})
    assert done.stderr == "cellblock: the log /dev/full cannot be written: No space left on device\n"
    assert done.returncode == 0
