"""The console in a real browser: runs watched and steered, and hostile output that stays text."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from orchestrator.agents import MultiStepAgent, ToolCallingAgent
from orchestrator.events import (
    Execution,
    ExecutionError,
    Finished,
    Logs,
    Output,
    State,
    Status,
    ToolCall,
    ToolOutcome,
    Usage,
)
from orchestrator.models import ModelReply, ScriptedModel, TokenUsage
from orchestrator.policy import ExecutionRequest, ToolCallRequest
from orchestrator.sandbox import NDArray, Table
from orchestrator.tools import tool
from tests.browsing import PATIENCE, Page, chromium, needs_browser
from tests.unit.console_parts import Console, StatefulSandbox
from tests.unit.fake_sandbox import HANG, answered, ran
from tests.unit.scripted_agents import calls, final
from tests.waiting import eventually

pytestmark = needs_browser


def plot() -> bytes:
    """Three bars, 480 pixels wide."""
    image, data = Image.new("RGB", (480, 240), "white"), io.BytesIO()
    for at, height in enumerate((200, 101, 80)):
        ImageDraw.Draw(image).rectangle((60 + at * 130, 220 - height, 150 + at * 130, 220), "steelblue")
    image.save(data, "PNG")
    return data.getvalue()


def reply(thought: str, code: str) -> ModelReply:
    return ModelReply(f"Thought: {thought}\n<code>\n{code}\n</code>", TokenUsage(1200, 85))


def table() -> Table:
    populations = NDArray("<i8", (3,), b"".join(n.to_bytes(8, "little") for n in (3_755_251, 1_892_122, 1_512_491)))
    return Table((("city", ["Berlin", "Hamburg", "Munich"]), ("population", populations)), (None, [0, 1, 2]))


def rich(value: Any, usage: Usage, **results: Any) -> Execution:
    shown = tuple({name.replace("_", "/"): data} for name, data in results.items())
    return Execution(Status.OK, State.KEPT, 1, value=value, text="shown", results=shown, usage=usage)


SHOWING = (
    [
        reply("I look up the cities first.", "cities = lookup('DE')  # by size\nprint(f'{len(cities)} found')\ncities"),
        reply(
            "Now a plot of them.",
            "import matplotlib.pyplot as plt\nplt.bar(cities.city, cities.population)\nplt.show()",
        ),
        reply("I divide.", "def share(a, b):\n    return a / b\n\nshare(1, 0)"),
        reply("Done.", "final_answer({'largest': 'Berlin', 'share': 0.52})"),
    ],
    [
        [
            ToolCall(1, "lookup", ("DE",), {"order": "size", "limit": 3}),
            ToolOutcome(1, "lookup", None, 0.31),
            Output("stdout", "3 "),
            Output("stdout", "found\n"),
            Output("stderr", "UserWarning: old data\n"),
            Finished(rich(table(), Usage(1.4, 0.3, 48 << 20, 30, 1))),
        ],
        rich(None, Usage(0.8, 0.7, 90 << 20), image_png=plot()),
        Execution(
            Status.ERROR,
            State.KEPT,
            1,
            logs=Logs(),
            error=ExecutionError(
                "ZeroDivisionError", "division by zero", "line 2, in share\nZeroDivisionError: division by zero"
            ),
        ),
        answered({"largest": "Berlin", "share": 0.52}),
    ],
)
ASKING = (
    [reply("I send it.", "send_mail('boss@example.org', 'done')"), reply("Sent.", "final_answer('sent')")],
    [ToolCallRequest("send_mail", {"to": "boss@example.org", "text": "done\u202e!"}, 1), ran("None"), answered("sent")],
)


class Trap(BaseHTTPRequestHandler):
    """A server elsewhere, to which nothing must be sent."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_error(404)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def trap() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Trap)
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def hostile(port: int) -> tuple[Any, Any]:
    """What tries to be more than text, everywhere that text comes from outside."""
    there = f"http://127.0.0.1:{port}"
    bad = (
        f"<script>window.pwned=1</script><img src=x onerror=\"window.pwned=1;fetch('{there}/img')\">"
        f'<iframe src="{there}/frame"></iframe><link rel=stylesheet href="{there}/css"><svg onload="window.pwned=1">'
        f"</textarea></title>javascript:window.pwned=1 \x1b[31mred\x1b[0m\x1b]8;;{there}/osc\x07link\x1b]8;;\x07"
        "\x1b[2J\u202egnp.exe\x00\x07"
    )
    svg = f'<svg xmlns="http://www.w3.org/2000/svg"><script>window.pwned=1</script><image href="{there}/svg"/></svg>'
    bundle = {"text/html": bad, "image/svg+xml": svg, "application/javascript": bad}
    events = [
        ToolCall(1, bad, (bad,), {bad: bad}),
        ToolOutcome(1, bad, bad, 0.1),
        Output("stdout", "split \x1b[3"),
        Output("stdout", "1m" + bad),
        Output("stderr", bad),
        Finished(
            Execution(
                Status.ERROR,
                State.KEPT,
                1,
                value=Table(((bad, [bad]), ("b", [svg]))),
                text=bad,
                logs=Logs(bad),
                results=(bundle, {"image/png": svg.encode()}, {bad: bad}),
                error=ExecutionError(bad, bad, bad),
            )
        ),
    ]
    return [reply(bad, f"# {bad}\nprint('''{bad}''')"), reply("x", "final_answer(1)")], [events, answered({bad: [bad]})]


def team(record: Path) -> MultiStepAgent:
    """An agent that plans, and has another one do the work."""
    member_says = [
        calls(("add", {"a": 40, "b": 2}), text="I add.", usage=TokenUsage(300, 20)),
        final("It is 42.", TokenUsage(350, 30)),
    ]

    @tool
    def add(a: int, b: int) -> int:
        """Adds.

        Args:
            a: one.
            b: the other.
        """
        return a + b

    member = ToolCallingAgent(
        [add], ScriptedModel(member_says), name="counter", description="Counts.", verbosity_level=-1
    )
    says = [
        ModelReply("1. Ask the counter.\n2. Answer.", TokenUsage(500, 60)),
        calls(("counter", {"task": "What is 40 + 2?"}), text="I ask the counter.", usage=TokenUsage(900, 40)),
        final("It is 42, says the counter.", TokenUsage(1100, 30)),
    ]
    return ToolCallingAgent(
        [], ScriptedModel(says), managed_agents=[member], planning_interval=5, verbosity_level=-1, record=record
    )


@pytest.fixture
def console(tmp_path: Path, trap: ThreadingHTTPServer) -> Iterator[Console]:
    agents = {
        "default": SHOWING,
        "other": ASKING,
        "endless": ([reply("I wait.", "wait()")], [HANG]),
        "waiting": (
            [reply("One.", "x = 1"), reply("Two.", "x = 2"), reply("Done.", "final_answer(1)")],
            [ran(), ExecutionRequest("x = 2", 5.0), ran(), answered(1)],
        ),
        "hostile": hostile(trap.server_port),
        "team": team,
        "long": (
            [reply("I run it.", "x"), reply("Done.", "final_answer(1)")],
            [ExecutionRequest("x = 1\n" * 200_000, 5.0), ran("None"), answered(1)],
        ),
    }
    made = Console(tmp_path, agents, StatefulSandbox([rich(table(), Usage(0.2, 0.1)), ran("4", stdout="four\n"), HANG]))
    yield made
    made.close()


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as made:
        yield made


class ConsolePage(Page):
    """The page of a console of this test's."""

    def __init__(self, driver: webdriver.Chrome, console: Console) -> None:
        super().__init__(driver, console.server.link())
        self.console = console

    def watch(self, agent: str, task: str) -> str:
        """Begins a run, and looks at it."""
        self.console.login()
        run = self.console.start(agent, task)
        self.go(f"#/runs/{run}")
        return run


@pytest.fixture
def page(driver: webdriver.Chrome, console: Console) -> ConsolePage:
    return ConsolePage(driver, console)


def test_a_link_logs_in_and_leaves_no_code_behind(page: ConsolePage) -> None:
    assert "login" not in page.driver.current_url
    page.until("#list ~ #side-more", "No runs yet")
    page.shot("empty")
    page.click("#logout")
    page.until("#login input")
    page.shot("login")
    page.driver.refresh()
    page.until("#login input")


def test_a_wrong_token_is_told(page: ConsolePage) -> None:
    page.click("#logout")
    page.until("#login input").send_keys("cbk_wrong", Keys.ENTER)
    page.until(".toast", "no valid token")


def test_a_run_is_begun_by_keyboard_and_shown_with_all_it_does(page: ConsolePage) -> None:
    page.press("n")
    page.until("#prompt")
    page.shot("new")
    page.press("Which are the three largest cities of Germany?")
    page.send()
    page.until(".card.answer", "Berlin")
    page.until(".page .badge", "succeeded")
    assert [step.text.split("\n")[0] for step in page.all(".step h3")] == ["Step 1", "Step 2", "Step 3", "Step 4"]
    page.until(".call.good .given", 'order="size"')
    page.until("pre.output", "3 found")
    page.until("pre.output .stderr", "old data")
    assert [cell.text for cell in page.all("tbody tr:first-child td")] == ["Berlin", "3755251"]
    page.until("pre.error", "ZeroDivisionError")
    page.until(".used", "1,200 tokens in")
    page.until(".t-keyword", "def")
    loaded = "const i = document.querySelector('img.picture'); return i && i.complete && i.naturalWidth"
    page.driver.execute_script("document.querySelector('img.picture').scrollIntoView()")
    eventually(lambda: page.driver.execute_script(loaded) == 480, "the plot is shown", PATIENCE)
    page.shot("plot")
    page.driver.execute_script("document.getElementById('detail').scrollTop = 0")
    page.shot("run")


def test_dark_and_light_are_what_the_machine_prefers_until_somebody_chooses(page: ConsolePage) -> None:
    def is_dark() -> bool:
        colour = page.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        return max(map(int, re.findall(r"\d+", colour)[:3])) < 64

    assert not is_dark()
    page.theme("dark")
    assert is_dark()
    page.press("t")
    assert not is_dark()
    page.driver.refresh()
    page.until("#top nav")
    assert not is_dark()
    page.driver.execute_script("localStorage.removeItem('cellblock-theme')")


def test_what_runs_is_seen_as_it_comes_and_interrupted(page: ConsolePage) -> None:
    page.watch("endless", "Wait.")
    page.until(".step.live pre.output", "on")
    page.until(".page .badge", "running")
    page.shot("live")
    page.press("i")
    page.press(Keys.ENTER)
    page.until(".page .badge", "interrupted")
    page.until(".end pre.error", "interrupted by local")
    page.until_gone(".step.live")
    page.click(".page button", "Resume")
    page.until(".card", "The run goes on")
    page.until(".step.live pre.output", "on")
    page.press("i")
    page.press(Keys.ENTER)
    page.until(".page .badge", "interrupted")


@pytest.mark.parametrize("answer", ["Approve", "Refuse"])
def test_a_question_is_answered(page: ConsolePage, answer: str) -> None:
    page.watch("other", "Tell the boss.")
    asked = page.until(".question")
    assert "\\u202e" in asked.text  # what would turn the direction of writing is to be seen
    page.until(".page .badge", "waiting")
    page.shot("question")
    page.press("q")
    asked.find_element(By.XPATH, f".//button[text()='{answer}']").click()
    page.until(".question .decided", f"{answer}d by local")
    page.until(".card.answer", "sent")


def test_a_team_is_shown_with_its_plan_and_what_its_members_do(page: ConsolePage) -> None:
    page.watch("team", "What is 40 + 2?")
    page.until(".card.answer", "It is 42, says the counter.")
    page.until(".card.plan", "Ask the counter.")
    page.until(".member summary", "counter")
    assert len(page.all(".member .call")) == 2  # each once, with its result
    page.until(".member .call.good", "42")
    page.until(".member .card.answer", "It is 42.")
    page.until(".step > .execution > .calls .call.good .given", "task=")
    page.until(".page .facts", "tokens in")
    page.shot("team")


def test_the_parts_of_the_page_do_what_they_say(page: ConsolePage) -> None:
    """Its modules, asked one by one in the browser."""

    def ask(expression: str, *given: Any) -> Any:
        names = ("text", "values", "arrays", "highlight", "checkpoints")
        script = (
            f"const [given, done] = arguments; Promise.all({list(names)}.map(n => import('/static/' + n"
            f" + '.js'))).then(([{', '.join(names)}]) => done({expression}), e => done(String(e)))"
        )
        return page.driver.execute_async_script(script, given)

    assert ask("text.safe(given[0])", "a\x1b[1mb\x1b[0m\r\nc\u200bd\te\x9b") == "ab\nc\\u200bd\te\\x9b"
    assert ask("text.whole(given[0])", "a\x1b[3") == ["a", "\x1b[3"]
    assert ask("text.line(given[0], 5)", "one\n two") == "one …"
    value = {
        "$type": "tuple",
        "items": [1, None, True, {"$type": "set", "items": []}, {"a": {"$type": "float", "value": "nan"}}],
    }
    assert ask("values.written(given[0])", value) == '(1, None, True, set(), {"a": nan})'
    assert ask("arrays.decoded(given[0], 9)", {"dtype": "<i2", "shape": [2], "data": "AQD//w=="}) == [1, -1]
    assert ask("arrays.decoded(given[0], 9)", {"dtype": "<f8", "shape": [1 << 40], "data": "?"}) == []
    code = '@d\ndef f(x):\n  return \'a\\\'b\' + """c\nd""" # é\n\'open\n' + "'" * 50 + "\\"
    joined = "highlight.highlighted(given[0]).map(n => typeof n === 'string' ? n : n.textContent).join('')"
    assert ask(joined, code) == code
    for hostile in (
        "'" + "\\'" * 50_000 + "\\",
        '"""' * 30_000 + "\\",
        "\x1b]" * 50_000,
        "é\u0301" + "\u0301" * 90_000,
    ):
        assert ask(
            "(highlight.highlighted(given[0]), text.safe(given[0]).length < 900000)", hostile
        )  # and takes no time
    kept = [
        {
            "number": n,
            "name": "",
            "execution": e,
            "follows": f,
            "age": 1,
            "memory": 0,
            "is_current": n == 4,
            "container": "",
        }
        for n, e, f in ((1, 0, None), (2, 1, 0), (3, 2, 1), (4, 3, 1))
    ]
    name = "li.querySelector('.name').textContent + li.style.getPropertyValue('--level')"
    rows = f"[...checkpoints.tree(given[0], {{}}).children].map(li => {name})"
    assert ask(rows, kept) == ["the beginning0", "execution 10", "execution 21", "execution 30"]


def test_what_cannot_be_seen_whole_cannot_be_approved(page: ConsolePage) -> None:
    page.watch("long", "Run a lot.")
    assert "x = 1" not in page.until(".question", "cannot be shown whole").text
    assert [button.text for button in page.all(".question button")] == ["Refuse"]
    page.click(".question button", "Refuse")
    page.until(".question .decided", "Refused by local")


def test_hostile_output_stays_text(page: ConsolePage, trap: Any) -> None:
    run = page.watch("hostile", "<img src=x onerror=window.pwned=1><b>bold</b>")
    page.until(".card.answer")
    page.until(".page .badge", "succeeded")
    for details in page.all("#detail details"):
        page.driver.execute_script("arguments[0].open = true", details)
    page.until("details.source pre", "<script>window.pwned=1</script>")
    page.until("details.told pre")
    shown = page.text()
    for text in ("<script>window.pwned=1</script>", "<b>bold</b>", "\\u202egnp.exe", "\\x00"):
        assert text in shown
    assert "\x1b" not in shown
    assert "[31m" not in page.until("pre.output").text
    assert "split <script>" in shown  # a sequence in two pieces is one
    foreign = "#detail :is(script, iframe, svg, link, object, embed, style, form:not(.prompt), img:not(.picture))"
    assert page.all(foreign) == []
    assert page.all("#detail :is([onerror], [onload], a[href^='http'], a[href^='javascript'])") == []
    page.shot("hostile")
    page.check_inert()
    page.driver.get(f"{page.console.server.url}/api/runs/{run}")  # on its own, too, it is no page
    assert page.all("img, script") == []
    assert trap.asked == []


def test_a_sandbox_runs_code_and_goes_back_and_branches(page: ConsolePage) -> None:
    page.go(f"#/sandboxes/{page.console.sandbox_id}")
    page.until("#prompt").send_keys("cities")
    page.send()
    page.until(".executions td", "Hamburg")
    page.until(".tree .name", "execution 1")
    page.until("#prompt").send_keys("print('four')")
    page.send()
    page.until(".executions pre.output", "four")
    page.until(".tree li[aria-current] .name", "execution 2")
    page.until(".aside input").send_keys("before the deed")
    page.click(".aside .row button", "Keep")
    page.until(".tree .name", "before the deed")
    page.click(".aside button", "What holds it")
    page.until(".layers .sub", "<b>runc</b>")
    page.shot("sandbox")
    page.driver.execute_script("document.querySelectorAll('.tree button')[2].click()")
    page.until(".toast", "as it was then")
    page.until(".tree li[aria-current] .name", "execution 1")
    page.driver.execute_script("document.querySelector('.tree li:last-child .acts button:last-child').click()")
    page.until(".facts", "what it was forked from")
    eventually(lambda: len(page.all("#list li")) == 2, "the branch is in the list", PATIENCE)
    page.shot("branch")
    page.check_inert()


def test_a_sandbox_of_a_run_is_looked_at_and_taken_back_and_its_agent_is_told(page: ConsolePage) -> None:
    run = page.watch("waiting", "Wait.")
    page.until(".question")
    page.click(".page a", "its sandbox")
    page.until(".sandbox p.note", "An agent works here")
    page.until(".page .badge", "idle")
    page.until(".tree li", "execution 1")
    assert (page.all("#prompt"), page.all(".page .actions button")[0].text) == ([], "Interrupt")
    page.click(".aside button", "What holds it")
    page.until(".layers", "no network")
    page.shot("sandbox of a run")
    page.click(".tree button", "Roll back")
    page.until(".toast", "The state is as it was then")
    page.click(".page a", "its run")
    page.click(".question button", "Approve")
    page.until(".card", "Somebody else has taken the Python state back.")
    page.until(".card.answer", "1")
    page.until(".page .badge", "succeeded")
    assert run in page.driver.current_url


def test_a_sandbox_of_a_run_can_be_interrupted_and_says_when_it_has_ended(page: ConsolePage) -> None:
    page.watch("endless", "Wait.")
    page.until(".step.live pre.output", "on")
    page.click(".page a", "its sandbox")
    page.until(".page .badge", "busy")
    page.until(".aside p.note", "when the execution under way has ended")
    page.click(".page .actions button", "Interrupt")
    page.until(".aside p.note", "this sandbox has been closed")  # the model has no more to say


SPY = """
const real = window.fetch;
window.sent = [];
window.fetch = (path, given) => { if (given.body) window.sent.push(JSON.parse(given.body)); return real(path, given) };
"""


def offline(page: ConsolePage, is_offline: bool) -> None:
    """As if the cable was drawn."""
    given = {"offline": is_offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", given)


def test_what_nobody_answered_is_sent_again_as_it_was_and_what_was_answered_is_not(page: ConsolePage) -> None:
    page.driver.execute_script(SPY)
    sends = (
        "const done = arguments[1]; import('/static/api.js').then(async api => {"
        " window.begin ??= api.sender('/api/runs');"
        " try { done((await window.begin(arguments[0])).id) } catch (error) { done(error.isUnanswered) } })"
    )
    task = {"task": "Look.", "agent": "default"}
    offline(page, True)
    try:
        assert page.driver.execute_async_script(sends, task) is True
    finally:
        offline(page, False)
    begun = page.driver.execute_async_script(sends, task)
    assert page.driver.execute_async_script(sends, task) != begun
    for _ in range(2):
        assert page.driver.execute_async_script(sends, task | {"agent": "nobody"}) is False
    first, again, *others = [body["key"] for body in page.driver.execute_script("return sent")]
    assert first == again
    assert len({first, *others}) == 1 + len(others) == 4


def test_code_whose_answer_was_lost_runs_once(page: ConsolePage) -> None:
    page.go(f"#/sandboxes/{page.console.sandbox_id}")
    page.until(".tree li")
    page.driver.execute_script(SPY)
    page.until("#prompt").send_keys("cities")
    offline(page, True)
    try:
        page.send()
        eventually(lambda: page.driver.execute_script("return sent.length") > 1, "it is sent again", PATIENCE)
    finally:
        offline(page, False)
    page.until(".executions td", "Hamburg")
    page.until(".tree .name", "execution 1")
    sent = page.driver.execute_script("return sent")
    assert [body["code"] for body in sent] == ["cities"] * len(sent)
    assert len({body["key"] for body in sent}) == 1
    page.console.login()
    page.console.post(f"/api/sandboxes/{page.console.sandbox_id}/close")
    page.until("#prompt").send_keys("lost = 1")
    page.send()
    page.until(".toast", "closed")
    assert page.until("#prompt").get_attribute("value") == "lost = 1"
    assert [body["code"] for body in page.driver.execute_script("return sent")].count("lost = 1") == 1


def test_the_list_is_searched_and_gone_through_by_keys(page: ConsolePage) -> None:
    page.console.login()
    for task in ("Find the red fox", "Find the blue whale"):
        page.console.start("default", task)
    page.go("#/runs")
    page.until("#list a", "whale")
    page.press("j")
    page.press("j")
    page.press(Keys.ENTER)
    page.until(".page h2", "Find the red fox")
    page.press(Keys.ESCAPE)
    page.press("/")
    page.press("whale")
    eventually(lambda: len(page.all("#list li")) == 1, "one is found", PATIENCE)
    page.press(Keys.ESCAPE)
    page.press("?")
    page.until("dialog[open] kbd", "Ctrl")
    page.shot("keys")


def test_a_page_elsewhere_cannot_speak_to_the_console(page: ConsolePage, trap: Any) -> None:
    console = page.console
    page.driver.get(f"http://127.0.0.1:{trap.server_port}/")
    ask = (
        "const done = arguments[2]; fetch(arguments[0], {method: arguments[1], credentials: 'include', mode: 'no-cors',"
        " body: arguments[1] === 'POST' ? '{}' : undefined}).then(r => done(r.type), e => done('failed'))"
    )
    for path, method in (("/api/runs", "GET"), ("/api/runs", "POST"), ("/logout", "POST"), ("/static/app.js", "GET")):
        seen = page.driver.execute_async_script(ask, console.server.url + path, method)
        assert seen in ("opaque", "failed")
    assert len(console.server.sessions) >= 1
    trap.asked.clear()
