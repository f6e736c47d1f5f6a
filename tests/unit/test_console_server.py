"""The console's server: who gets in, what is refused, what comes out. A real uvicorn, a real service behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator.agents.event_json import event_to_json
from orchestrator.console import ConsoleServer, serving, shown
from orchestrator.console.app import STATIC
from orchestrator.console.asked import MAX_BODY
from orchestrator.console.guard import HEADERS
from orchestrator.console.sessions import (
    IDLE_SECONDS,
    LINK_SECONDS,
    MAX_OWN,
    MAX_SESSIONS,
    MAX_STREAMS,
    ConsoleSessions,
    Session,
)
from orchestrator.errors import AccessDenied, ConfigError
from orchestrator.events import ApprovalAsked, Execution, Logs, State, Status
from orchestrator.media import AgentImage
from orchestrator.policy import ToolCallRequest
from tests.unit.console_parts import GOOD, NARROW, Console, StatefulSandbox, plain
from tests.unit.fake_sandbox import HANG, answered, ran
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
ASKING = (
    ["Thought: send.\n<code>\nsend_mail('a')\n</code>", "Thought: done.\n<code>\nfinal_answer(1)\n</code>"],
    [ToolCallRequest("send_mail", {"to": "a"}, 1), ran("None"), answered(1)],
)
ENDLESS = (["Thought: wait.\n<code>\nwait()\n</code>"], [HANG])


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    agents = {"default": plain(), "asking": ASKING, "endless": ENDLESS}
    script = [ran("3", stdout="hello\n"), ran("4"), HANG]
    made = Console(tmp_path, agents, StatefulSandbox(script))
    yield made
    made.close()


@pytest.fixture
def entered(console: Console) -> Console:
    console.login()
    return console


def session_of(console: Console) -> Session:
    """The one of whoever is logged in."""
    return console.server.sessions.find(console.cookie.partition("=")[2], console.csrf)


# ------------------------------------------------------------------------------------------------------------- login


def test_a_link_logs_in_the_user_of_the_socket_once(console: Console) -> None:
    code = console.server.link().partition("/login#")[2]
    reply = console.login(code=code)
    assert reply.status == 200
    assert reply.json["as"] == "local"
    assert console.get("/api/sandboxes").json["sandboxes"][0]["owner"] == "local"
    assert console.login(code=code).status == 401


def test_the_cookie_is_for_no_script_and_no_other_site(console: Console) -> None:
    cookie = console.login().headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


def test_a_token_gives_the_rights_of_the_token(console: Console) -> None:
    assert console.login(token=GOOD).json["as"] == "token"
    run = console.start()
    assert console.get(f"/api/runs/{run}").json["owner"] == "app"
    console.watched(run)  # it has a sandbox while it is under way
    assert console.get("/api/sandboxes").json == {"sandboxes": []}  # the one there is belongs to another


def test_what_a_token_may_not_do_is_refused_by_the_service(console: Console) -> None:
    console.login(token=NARROW)
    refused = console.post("/api/runs", {"task": "x"})
    assert refused.status == 403
    assert "scope" in refused.json["message"]


@pytest.mark.parametrize("token", ["", "cbk_" + "x" * 43, "no token", "a\nb", "cbk_" + "g" * 42, "ü", "x" * 3000])
def test_what_is_no_token_gives_no_session(console: Console, token: str) -> None:
    assert console.login(token=token).status == 401
    assert len(console.server.sessions) == 0


def test_a_token_that_has_been_revoked_is_good_no_more(console: Console) -> None:
    console.login(token=GOOD)
    assert console.get("/api/status").status == 200
    console.run(console.store.revoke("app"))
    assert console.get("/api/status").status == 401
    assert len(console.server.sessions) == 0


@pytest.mark.parametrize(("cookie", "csrf"), [(True, False), (False, True), (False, False)])
def test_neither_secret_is_good_without_the_other(entered: Console, cookie: bool, csrf: bool) -> None:
    entered.cookie = entered.cookie if cookie else "cellblock=x"
    entered.csrf = entered.csrf if csrf else "x"
    assert entered.get("/api/runs").status == 401
    assert entered.post("/api/runs", {"task": "x"}).status == 401
    assert entered.post("/logout").status == 401


def test_whoever_goes_out_is_out_and_his_streams_end(entered: Console) -> None:
    run = entered.start("endless")
    with entered.stream(f"/api/runs/{run}/events") as lines:
        next(lines)
        assert entered.post("/logout").status == 200
        assert list(lines)[-1].kind == "failed"
    assert entered.get("/api/runs").status == 401


# ------------------------------------------------------------------------------------------------------------- guard


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "evil.example:{port}", "127.0.0.1.:{port}"]
)
def test_by_another_name_nobody_is_at_home(console: Console, host: str) -> None:
    assert console.get("/", host=host.format(port=console.port)).status == 403


def test_localhost_is_one_of_the_names(console: Console) -> None:
    assert console.get("/", host=f"localhost:{console.port}").status == 200


@pytest.mark.parametrize(
    "origin", ["", "null", "http://evil.example", "https://127.0.0.1:{port}", "http://127.0.0.1:1"]
)
def test_another_page_can_send_nothing(entered: Console, origin: str) -> None:
    assert entered.post("/api/runs", {"task": "x"}, origin=origin.format(port=entered.port)).status == 403
    assert entered.post("/login", {"token": GOOD}, origin=origin.format(port=entered.port)).status == 403
    assert entered.get("/api/runs").json == {"runs": []}


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_page_can_read_nothing_but_may_link_here(entered: Console, site: str) -> None:
    assert entered.get("/api/runs", sec_fetch_site=site).status == 403
    assert entered.get("/static/app.js", sec_fetch_site=site).status == 403
    visit = {"sec_fetch_site": site, "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert entered.get("/", **visit).status == 200


def test_a_form_cannot_be_sent_here(entered: Console) -> None:
    assert entered.post("/api/runs", b'{"task": "x"}', content_type="text/plain").status == 403


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/api/runs", "/nothing", "/login"])
def test_every_response_has_the_headers(console: Console, path: str) -> None:
    found = console.get(path).headers
    assert {name: found[name] for name in HEADERS} == HEADERS
    assert "server" not in found


def test_the_policy_lets_no_foreign_script_run() -> None:
    policy = dict(part.strip().split(" ", 1) for part in HEADERS["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in HEADERS["content-security-policy"]


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b'{"task": 1}', b'{"task": "\\ud800"}', b"[" * 100_000])
def test_what_is_no_request_is_told_so(entered: Console, body: bytes) -> None:
    assert entered.post("/api/runs", body).status == 400


def test_bodies_are_bounded_before_and_after_the_login(entered: Console) -> None:
    assert entered.post("/login", {"token": "x" * 5000}).status == 413
    most = b" " * MAX_BODY
    assert entered.post("/api/runs", most).status == 400  # it is read to its end: it is no JSON
    told = entered.post("/api/runs", most + b" ", content_length=str(MAX_BODY * 2))  # the rest never comes
    assert told.status == 413


def test_streams_of_a_login_are_bounded(entered: Console) -> None:
    run = entered.start("endless")
    with contextlib.ExitStack() as open_ones:
        for _ in range(MAX_STREAMS):
            next(open_ones.enter_context(entered.stream(f"/api/runs/{run}/events")))
        refused = entered.get(f"/api/runs/{run}/events")
        assert refused.status == 429
        assert refused.headers["retry-after"]
    eventually(lambda: session_of(entered).streams == 0, "the places are free again")


@pytest.mark.parametrize("path", ["/static/../server.py", "/static/%2e%2e/server.py", "/static/nothing.js", "/api/x"])
def test_there_is_nothing_else(entered: Console, path: str) -> None:
    assert entered.get(path).status == 404


@pytest.mark.parametrize("id", ["../x", "a%2fb", "x" * 65, "%00", "nothing"])
def test_a_name_of_nothing_is_not_found(entered: Console, id: str) -> None:
    assert entered.get(f"/api/runs/{id}").status == 404


# -------------------------------------------------------------------------------------------------------------- runs


def test_a_run_is_begun_watched_and_listed(entered: Console) -> None:
    run = entered.start(task="What is 6*7?")
    lines = entered.watched(run)
    kinds = [line.data["event"]["kind"] for line in lines[:-1]]
    assert kinds[0] == "task_step"
    assert kinds[-1] == "final_answer_step"
    assert [line.id for line in lines[:-1]] == [str(number) for number in range(1, len(lines))]
    assert (lines[-1].kind, lines[-1].data["state"]) == ("end", "succeeded")
    assert [one["id"] for one in entered.get("/api/runs?search=6*7").json["runs"]] == [run]
    assert entered.get("/api/runs?search=nothing").json == {"runs": []}


def test_a_stream_goes_on_after_the_last_event_that_was_seen(entered: Console) -> None:
    run = entered.start()
    every = entered.watched(run)
    assert entered.watched(run, after=3) == every[3:]
    assert entered.get(f"/api/runs/{run}/events", last_event_id="-1").status == 400


def test_a_request_that_comes_again_begins_nothing_anew(entered: Console) -> None:
    first, second = (entered.post("/api/runs", {"task": "x", "key": "k"}).json["id"] for _ in range(2))
    assert first == second
    assert len(entered.get("/api/runs").json["runs"]) == 1


@pytest.mark.parametrize("approved", [True, False])
def test_a_question_is_shown_and_answered(entered: Console, approved: bool) -> None:
    run = entered.start("asking")
    with entered.stream(f"/api/runs/{run}/events") as lines:
        asked = next(line for line in lines if line.data["event"]["kind"] == "approval_asked").data["event"]
        assert entered.get(f"/api/runs/{run}").json["state"] == "waiting"
        answer = {"question": asked["question"], "approved": approved, "reason": "" if approved else "not now"}
        for _ in range(2):  # the second is told the same
            assert entered.post(f"/api/runs/{run}/decide", answer).status == 200
        assert entered.post(f"/api/runs/{run}/decide", {**answer, "approved": not approved}).status == 404
        rest = [line.data["event"] for line in lines if line.kind == "event"]
    decided = next(event for event in rest if event["kind"] == "approval_decided")
    assert (decided["approved"], decided["by"]) == (approved, "local")
    assert (
        entered.post(f"/api/runs/{run}/decide", {"question": "x"}).status == 400
    )  # nothing is approved by leaving out


def test_a_run_is_interrupted_and_gone_on_with(entered: Console) -> None:
    run = entered.start("endless")
    with entered.stream(f"/api/runs/{run}/events") as lines:
        next(line for line in lines if line.data["event"]["kind"] == "output")
        assert entered.post(f"/api/runs/{run}/interrupt").status == 200
        end = list(lines)[-1]
    assert (end.kind, end.data["state"], end.data["can_resume"]) == ("end", "interrupted", True)
    assert entered.post(f"/api/runs/{run}/resume").json["state"] in ("queued", "running")


def test_a_service_that_is_gone_is_told_and_asked_again(entered: Console) -> None:
    run = entered.start("endless")
    with entered.stream(f"/api/runs/{run}/events") as lines:
        next(lines)
        entered.break_service()
        end = list(lines)[-1]
    assert (end.kind, end.data["error"]) == ("failed", "UNAVAILABLE")
    assert entered.get("/api/runs").status == 503


# --------------------------------------------------------------------------------------------------------- sandboxes


def test_code_runs_in_a_sandbox_and_its_events_come_again(entered: Console) -> None:
    path = f"/api/sandboxes/{entered.sandbox_id}/run"
    with entered.stream(path, {"code": "1 + 2", "key": "k"}) as lines:
        first = list(lines)
    assert [line.data["event"]["kind"] for line in first[:-1]] == ["output", "finished"]
    assert first[-1].kind == "end"
    with entered.stream(path, {"code": "1 + 2", "key": "k", "after": 1}) as lines:
        assert list(lines) == first[1:]


def test_states_are_kept_gone_back_to_and_branched_from(entered: Console) -> None:
    path = f"/api/sandboxes/{entered.sandbox_id}"
    with entered.stream(f"{path}/run", {"code": "x = 3"}) as lines:
        list(lines)
    kept = entered.post(f"{path}/checkpoints", {"name": "good"}).json
    assert [one["number"] for one in entered.get(f"{path}/checkpoints").json["checkpoints"]] == [1, 2, 3]
    back = {"number": 2, "container": kept["container"]}
    assert entered.post(f"{path}/rollback", back).json["files_restored"]
    assert entered.post(f"{path}/rollback", {}).status == 400
    branch = entered.post(f"{path}/fork", {}).json
    assert branch["parent"] == entered.sandbox_id
    assert entered.get(f"{path}/isolation").json["isolation"]["layers"][0]["in_force"]
    assert entered.post(f"/api/sandboxes/{branch['id']}/close").status == 200
    assert len(entered.get("/api/sandboxes").json["sandboxes"]) == 1


def test_code_whose_reader_has_gone_can_be_interrupted(entered: Console) -> None:
    path = f"/api/sandboxes/{entered.sandbox_id}"
    for _ in range(2):
        with entered.stream(f"{path}/run", {"code": "1"}) as lines:
            list(lines)
    with entered.stream(f"{path}/run", {"code": "wait()"}) as lines:
        next(lines)
        assert entered.get(path).json["state"] == "busy"
        assert entered.post(f"{path}/interrupt").status == 200
        assert list(lines)[-2].data["event"]["execution"]["status"] == "interrupted"


def test_a_long_event_is_cut_and_a_picture_in_it_is_not(tmp_path: Path) -> None:
    picture = b"\x89PNG" + bytes(200_000)
    long = Execution(Status.OK, State.KEPT, 1, logs=Logs("x" * 3_000_000), results=({"image/png": picture},))
    console = Console(tmp_path, {}, StatefulSandbox([long]))
    try:
        console.login()
        with console.stream(f"/api/sandboxes/{console.sandbox_id}/run", {"code": "x"}) as lines:
            finished = next(line for line in lines if line.data["event"]["kind"] == "finished")
    finally:
        console.close()
    execution = finished.data["event"]["execution"]
    assert len(execution["logs"]["stdout"]) < 300_000
    assert len(execution["results"][0]["image/png"]["data"]) > 200_000


def test_what_is_no_event_is_told_as_one() -> None:
    for data in (None, b"[" * 100_000, b"{", b"[1]" * (1 << 20), json.dumps({"a": ["x" * 190_000] * 1000}).encode()):
        assert json.loads(shown.event(1, 0.5, data))["event"]["kind"] == "left_out"


def question(**asked: Any) -> dict[str, Any]:
    """As the page is given it."""
    event = ApprovalAsked("q", **{"tool": "", "arguments": {}, "code": "", "deadline": 9.0} | asked)
    return dict(json.loads(shown.event(1, 0.5, event_to_json(event)))["event"])


def test_who_has_to_judge_something_sees_all_of_it() -> None:
    rows = list(range(2000))
    seen = question(tool="send", arguments={"to": "boss\u202e", "raw": b"\x00\xff", "rows": rows, "none": "a\u00a0b"})
    assert seen["shown"] == (
        f"send(\n    to = 'boss\\u202e',\n    raw = b'\\x00\\xff',\n    rows = {rows},\n    none = 'a\\xa0b',\n)"
    )
    code = question(code="if x:\n\u200b\x1b[1mrun(path)", arguments={"path": "/etc"})
    assert code["shown"] == "path = '/etc'\n\nif x:\n\\u200b\\x1b[1mrun(path)"


@pytest.mark.parametrize(
    "asked",
    [
        {"code": "x" * (shown.MAX_JUDGED + 1)},
        {"code": "\u200b" * (shown.MAX_JUDGED // 2)},  # as it is shown it is longer
        {"tool": "f", "arguments": {"a": [b"\x00" * shown.MAX_JUDGED]}},
        {"tool": "f", "arguments": {"a": [10**5000]}},
        {"code": "run(it)", "arguments": {"it": {"a": object()}}},
    ],
)
def test_what_cannot_be_shown_whole_is_not_shown_in_part(asked: dict[str, Any]) -> None:
    assert question(**asked)["shown"] is None


def test_what_is_just_short_enough_is_shown() -> None:
    for code in ("x" * shown.MAX_JUDGED, '{"$type":"opaque"}'):
        assert question(code=code)["shown"] == code


def test_a_picture_that_is_an_argument_is_shown_too() -> None:
    image = AgentImage.of(Image.new("RGB", (4, 4)))
    (picture,) = question(tool="f", arguments={"image": image})["pictures"]
    assert picture["mime"] == "image/png"


# ----------------------------------------------------------------------------------------------- sessions and server


def test_sessions_are_bounded_and_end_when_they_are_idle() -> None:
    now = [0.0]
    sessions = ConsoleSessions(lambda: now[0])
    made = [sessions.begin(f"t{number}") for number in range(MAX_SESSIONS + 1)]
    assert len(sessions) == MAX_SESSIONS
    assert made[0][1].ended.is_set()
    cookie, last = made[-1]
    now[0] = IDLE_SECONDS
    assert sessions.find(cookie, last.csrf) is last
    now[0] = IDLE_SECONDS * 2 + 1
    with pytest.raises(AccessDenied):
        sessions.find(cookie, last.csrf)
    assert len(sessions) == 0


def test_logging_in_again_and_again_logs_nobody_else_out() -> None:
    sessions = ConsoleSessions()
    _, other = sessions.begin("")
    made = [sessions.begin("t")[1] for _ in range(MAX_SESSIONS * 2)]
    assert not other.ended.is_set()
    assert [session.ended.is_set() for session in made].count(False) == MAX_OWN


def test_a_link_is_good_for_five_minutes() -> None:
    now = [0.0]
    sessions = ConsoleSessions(lambda: now[0])
    code = sessions.link()
    now[0] = LINK_SECONDS
    with pytest.raises(AccessDenied):
        sessions.redeem(code)


def test_a_session_says_no_secret() -> None:
    _, session = ConsoleSessions().begin(GOOD)
    assert GOOD not in repr(session)
    assert session.csrf not in repr(session)


@pytest.mark.parametrize(
    "address", ["0.0.0.0:8088", "8088", "192.0.2.1:8088", "example.org:80", "127.0.0.1:x", "[::]:1"]
)
def test_it_listens_on_this_machine_alone(address: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        ConsoleServer(address, tmp_path / "socket")


def test_an_address_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = ConsoleServer(f"localhost:{taken.getsockname()[1]}", tmp_path / "socket")
        with pytest.raises(ConfigError, match="in use"):
            asyncio.run(server.start())


def test_without_its_packages_it_says_which_extra_has_them() -> None:
    code = (
        "import asyncio, sys, pathlib; sys.modules['starlette'] = None\n"
        "from orchestrator.console import ConsoleServer\n"
        "asyncio.run(ConsoleServer('127.0.0.1:0', pathlib.Path('x')).start())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (
        "ConfigError: the console needs starlette and uvicorn; install it with: pip install 'cellblock[service]'"
        in done.stderr
    )


def test_it_stops_at_once_though_streams_are_open(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(serving, "STOP_SECONDS", 30)  # for what does not end by itself; read when it begins to serve
    entered: Console = request.getfixturevalue("entered")
    run = entered.start("endless")
    with entered.stream(f"/api/runs/{run}/events") as lines:
        next(lines)
        entered.run(asyncio.wait_for(entered.server.stop(), 15.0))
        assert list(lines)[-1].kind == "failed"
    with pytest.raises(ConnectionError):
        entered.get("/")


def test_no_file_of_the_page_parses_html() -> None:
    words = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "eval(", "new Function")
    scripts = sorted(STATIC.glob("*.js"))
    assert len(scripts) > 5
    for path in scripts:
        text = path.read_text()
        assert not [word for word in words if word in text], path.name
        assert "http://" not in text
        assert "https://" not in text
        assert len(text.splitlines()) < 300
