"""The page of ``GradioUI`` in a real browser: what a visitor sees, and what hostile text cannot do there.

Needs gradio, selenium, chromium and its driver; no engine. Models are scripted, sandboxes fakes.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

pytest.importorskip("gradio")

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from orchestrator.agents import CodeAgent, MultiStepAgent, SandboxSettings, ToolCallingAgent
from orchestrator.events import Finished, Output, ToolCall, ToolOutcome
from orchestrator.media import AgentAudio, AgentImage
from orchestrator.models import ChatMessage, ChatToolCall, ModelDelta, ModelReply, ScriptedModel
from orchestrator.models.deltas import pieces_of
from orchestrator.sandbox import AsyncSandbox
from orchestrator.tools import Tool, tool
from orchestrator.ui import GradioUI
from tests.browsing import PATIENCE, chromium, needs_browser
from tests.unit.fake_sandbox import HANG, FakeSandbox, answered, ran

pytestmark = needs_browser
HOSTILE = """<script>window.pwned=1</script><img src=x onerror="window.pwned=2"><svg onload="window.pwned=3">
![p](http://127.0.0.1:9/p.png) [c](javascript:window.pwned=4) <http://127.0.0.1:9/a> http://127.0.0.1:9/b www.h.org
<iframe src="http://127.0.0.1:9/f"></iframe> <style>body {display: none}</style> $$\\href{javascript:1}{x}$$

<details open ontoggle="window.pwned=5"><summary>x</summary></details>

````
```
</code></pre><script>window.pwned=6</script>
```mermaid
graph TD; A["<img src=x onerror='window.pwned=7'>"]-->B
```
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("chromium"), "--window-size=1100,1400") as driver:
        yield driver


@dataclass
class Page:
    """A tab, and what a visitor does in it."""

    browser: Any
    url: str
    tab: str = ""

    def open(self) -> Page:
        self.browser.switch_to.new_window("tab")
        self.tab = self.browser.current_window_handle
        self.browser.get_log("performance")  # of other tabs
        self.browser.get(self.url)
        self.until(lambda: self.find("#task textarea"))
        return self

    def there(self) -> Page:
        self.browser.switch_to.window(self.tab)
        return self

    def until(self, condition: Callable[[], Any]) -> Any:
        wait = WebDriverWait(self.browser, PATIENCE, 0.05, ignored_exceptions=[Exception])
        return wait.until(lambda _: condition())

    def find(self, selector: str) -> Any:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def say(self, text: str, file: Path | None = None) -> None:
        box = self.until(lambda: self.find("#task textarea:enabled"))
        if file is not None:
            self.find("#task input[type=file]").send_keys(str(file))
            self.until(lambda: self.find("#task .thumbnail-item"))
        box.send_keys(text, Keys.ENTER)

    @property
    def text(self) -> str:
        return str(self.find("#chat").text)

    def sees(self, text: str) -> None:
        self.until(lambda: text in self.text)

    def unfold(self) -> None:
        """Opens every part that is folded."""

        def open_next() -> bool:
            folded = self.browser.find_elements(By.CSS_SELECTOR, "#chat .thought-group .title:not(.expanded)")
            for part in folded:
                self.browser.execute_script("arguments[0].click()", part)
            return not folded

        self.until(lambda: self.find("#chat .thought-group .title"))
        self.until(open_next)

    def close(self) -> None:
        self.there().browser.close()
        self.browser.switch_to.window(self.browser.window_handles[0])


@pytest.fixture
def serve(browser: Any) -> Iterator[Callable[..., Page]]:
    """Serves an agent; gives its page, opened."""
    served: list[GradioUI] = []

    def start(agent: MultiStepAgent, *, opened: bool = True, launch: dict[str, Any] | None = None, **more: Any) -> Page:
        ui = GradioUI(agent, **more)
        _, url, shared = ui.launch(prevent_thread_lock=True, quiet=True, **(launch or {}))
        served.append(ui)
        assert not shared
        return Page(browser, url).open() if opened else Page(browser, url)

    first = browser.current_window_handle
    yield start
    for handle in browser.window_handles:
        if handle != first:
            browser.switch_to.window(handle)
            browser.close()
    browser.switch_to.window(first)
    for ui in served:
        ui.close()


@dataclass(frozen=True)
class Prepared(SandboxSettings):
    """Gives the test's own sandboxes."""

    sandboxes: list[FakeSandbox] = field(default_factory=list)
    given: list[FakeSandbox] = field(default_factory=list)

    def make(self, tools: Sequence[Tool], authorized_imports: Sequence[str]) -> AsyncSandbox:
        self.given.append(self.sandboxes.pop(0))
        return self.given[-1]


def code_agent(replies: Sequence[str], *scripts: Sequence[Any]) -> tuple[CodeAgent, Prepared]:
    settings = Prepared(sandboxes=[FakeSandbox(script) for script in scripts])
    written = [f"Thought: I go on.\n<code>\n{code}\n</code>" for code in replies]
    return CodeAgent([], ScriptedModel(written), sandbox=settings, verbosity_level=-1), settings


def answering(*answers: Any) -> ToolCallingAgent:
    replies = [ModelReply("", None, (ChatToolCall("final_answer", {"answer": answer}, "c"),)) for answer in answers]
    return ToolCallingAgent([], ScriptedModel(replies), verbosity_level=-1)


class Repeats:
    """Answers with everything that it was told by the user, and keeps that."""

    def __init__(self) -> None:
        self.requests: list[Sequence[ChatMessage]] = []

    async def generate(self, messages: Sequence[ChatMessage], stop_sequences: Any = (), **more: Any) -> ModelReply:
        self.requests.append(messages)
        told = " / ".join(message.content for message in messages if message.role == "user")
        return ModelReply("", None, (ChatToolCall("final_answer", {"answer": told}, "c"),))


def test_the_steps_stream_and_the_answer_comes(serve: Any) -> None:
    gate = threading.Event()

    class Slow(Repeats):
        async def generate_stream(
            self, messages: Sequence[ChatMessage], stop_sequences: Any = (), **more: Any
        ) -> AsyncGenerator[ModelDelta, None]:
            yield ModelDelta("I am thinking ")
            assert await asyncio.to_thread(gate.wait, PATIENCE)
            for piece in pieces_of(await self.generate(messages, stop_sequences, **more)):
                yield piece

    page = serve(ToolCallingAgent([], Slow(), verbosity_level=-1, stream_outputs=True))
    page.say("What <b>is</b> it?")
    page.sees("I am thinking")
    assert "What <b>is</b> it?" in page.text
    assert "New task:" not in page.text
    gate.set()
    page.sees("New task:\nWhat <b>is</b> it?")
    page.unfold()
    page.sees("I am thinking")


def test_output_streams_and_a_run_can_be_stopped_and_gone_on_with(serve: Any) -> None:
    agent, _ = code_agent(["print('on')", "6 * 7", "final_answer(42)"], [HANG, ran("42"), answered("it is 42")])
    page = serve(agent)
    page.say("Do it")
    page.sees("Output\non")
    page.sees("print('on')")
    page.find("#stop").click()
    page.sees("Stopped.")
    page.say("Go on")
    page.sees("it is 42")
    page.until(lambda: not page.find("#stop").is_enabled())


def test_hostile_text_is_text_wherever_it_is_from(serve: Any) -> None:
    @tool
    def echo(text: str) -> str:
        """Says it again.

        Args:
            text: what
        """
        if text == "fail":
            raise ValueError(HOSTILE)
        return text

    made = [
        ModelReply(
            HOSTILE, None, (ChatToolCall("echo", {"text": HOSTILE}, "a"), ChatToolCall("echo", {"text": "fail"}, "b"))
        ),
        ModelReply(HOSTILE, None, (ChatToolCall("nothing", {}, "c"),)),
        ModelReply("", None, (ChatToolCall("final_answer", {"answer": HOSTILE}, "d"),)),
    ]
    page = serve(ToolCallingAgent([echo], ScriptedModel([HOSTILE, *made]), planning_interval=9, verbosity_level=-1))
    page.say(HOSTILE.replace("\n", " "))
    page.until(lambda: page.find("#task textarea:enabled") and "Step 3" in page.text)
    page.unfold()
    # In the task, the plan, two thoughts, a call, its result, a failure, and the answer.
    page.until(lambda: page.text.count("<script>window.pwned=1</script>") == 8)

    def within(selector: str) -> Any:
        return page.browser.find_elements(By.CSS_SELECTOR, f"#chat .message-wrap .message {selector}")

    assert within("pre code")
    tags = ("script", "img", "iframe", "svg[onload]", "style", "details", "a[href]", "[onerror]", ".mermaid", ".katex")
    assert not [tag for tag in tags if within(tag)]
    assert page.browser.execute_script("return window.pwned") is None
    assert page.find("body").is_displayed()


def test_hostile_names_are_text_in_titles(serve: Any) -> None:
    name = "<img src=x onerror=window.pwned=8> ![p](http://h/p) `**x**`"
    events = [ToolCall(1, name, (name,), {}), ToolOutcome(1, name, "<b>no</b>", 0.1), Output("stderr", "<i>on</i>\n")]
    agent, _ = code_agent(["1"], [[*events, Finished(answered("done"))]])
    page = serve(agent)
    page.say("x")
    page.sees("done")
    page.unfold()
    page.sees(f"Tool {name}")
    page.sees("<b>no</b>")
    page.sees("<i>on</i>")
    assert page.browser.execute_script("return window.pwned") is None


def test_nothing_is_fetched_from_elsewhere(serve: Any) -> None:
    page = serve(answering(HOSTILE))
    page.say("x")
    page.sees("<iframe src=")
    asked = []
    for entry in page.browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.append(message["params"]["request"]["url"])
    assert [url for url in asked if url.startswith(page.url)]
    assert not [url for url in asked if not url.startswith((page.url, "data:", "blob:", "chrome:"))]
    assert not [entry["message"] for entry in page.browser.get_log("browser") if "Security Policy" in entry["message"]]


def test_pictures_sound_and_tables_are_shown(serve: Any) -> None:
    picture = AgentImage.of(Image.new("RGB", (40, 30), "red"))
    sound = AgentAudio(
        b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x40\x1f\0\0\1\0\x08\0data\0\0\0\0", "audio/wav"
    )
    page = serve(answering(picture, sound, [{"name": "<b>x", "size": 1}]))
    page.say("a picture")
    shown = page.until(lambda: page.find("#chat img[alt=picture]"))
    page.until(lambda: page.browser.execute_script("return arguments[0].naturalWidth", shown) == 40)
    page.say("a sound")
    heard = page.until(lambda: page.find("#chat audio[controls]"))
    page.until(lambda: page.browser.execute_script("return arguments[0].readyState", heard) > 0)
    page.say("a table")
    page.until(lambda: page.find("#chat table td").text == "<b>x")


def test_a_file_is_uploaded(serve: Any, tmp_path: Path) -> None:
    model = Repeats()
    page = serve(ToolCallingAgent([], model, verbosity_level=-1), file_upload_folder=tmp_path / "up")
    (tmp_path / "My data.csv").write_text("a,b\n1,2\n")
    page.say("Look", tmp_path / "My data.csv")
    page.sees("its contents are in the variable")
    assert [path.read_text() for path in (tmp_path / "up").rglob("*.csv")] == ["a,b\n1,2\n"]
    Image.new("RGB", (4, 3)).save(tmp_path / "photo.png")
    page.say("And here", tmp_path / "photo.png")
    page.sees("a picture, shown with this message")
    assert [len(message.images) for message in model.requests[-1] if message.images] == [1]
    page.close()
    page.until(lambda: not list((tmp_path / "up").iterdir()))


def test_two_visitors_are_apart_and_their_sandboxes_end_with_their_pages(serve: Any) -> None:
    agent, settings = code_agent(["1", "2", "3"], [answered("apples"), answered("anise")], [answered("bread")])
    ann = serve(agent)
    bob = Page(ann.browser, ann.url).open()
    ann.there().say("for ann")
    ann.sees("apples")
    bob.there().say("for bob")
    bob.sees("bread")
    ann.there().say("again")
    ann.sees("anise")
    assert "bread" not in ann.text
    assert "apples" not in bob.there().text
    assert len(settings.given) == 2
    ann.close()
    bob.there().until(lambda: settings.given[0].closes == 1)
    assert settings.given[1].closes == 0
    assert agent.memory.steps == []


def test_a_page_too_many_is_told_so_and_keeps_what_was_written(serve: Any) -> None:
    ann = serve(ToolCallingAgent([], Repeats(), verbosity_level=-1), max_visitors=1)
    ann.say("first")
    ann.sees("New task:\nfirst")
    bob = Page(ann.browser, ann.url).open()
    bob.say("second")
    bob.until(lambda: "too many people" in bob.find("body").text)
    bob.until(lambda: bob.find("#task textarea:enabled").get_attribute("value") == "second")
    ann.close()
    bob.there().find("#task textarea").send_keys(Keys.ENTER)
    bob.sees("New task:\nsecond")


def test_starting_over_ends_a_run_whose_words_do_not_come_back(serve: Any) -> None:
    agent, settings = code_agent(["print('on')", "2"], [HANG], [answered("fresh")])
    page = serve(agent)
    page.say("Do it")
    page.sees("Output\non")
    page.find("#start-over").click()
    page.until(lambda: settings.given[0].closes == 1)
    page.until(lambda: "Do it" not in page.text)
    page.say("Something else")
    page.sees("fresh")
    assert "Do it" not in page.text


def test_starting_over_forgets(serve: Any) -> None:
    model = Repeats()
    page = serve(ToolCallingAgent([], model, verbosity_level=-1))
    page.say("apples")
    page.sees("New task:\napples")
    page.find("#start-over").click()
    page.until(lambda: "apples" not in page.text)
    page.say("bread")
    page.sees("New task:\nbread")
    assert "apples" not in page.text
    assert "apples" not in str(model.requests[-1])


def test_other_sites_other_names_and_files_are_refused(serve: Any) -> None:
    page = serve(answering("x"), opened=False)
    assert page.url.startswith("http://127.0.0.1:")
    job = {"data": ["x"], "fn_index": 0, "session_hash": "s"}
    join = f"{page.url}gradio_api/queue/join"
    with httpx2.Client(timeout=PATIENCE) as http:
        assert http.post(join, json=job, headers={"origin": "http://evil.example"}).status_code == 403
        assert http.post(join, json=job, headers={"sec-fetch-site": "cross-site"}).status_code == 403
        assert http.get(page.url, headers={"host": "evil.example"}).status_code == 403
        assert http.post(f"{page.url}gradio_api/upload", files={"files": ("a.txt", b"x")}).status_code == 403
        assert http.post(f"{page.url}gradio_api/call/send", json={"data": ["x"]}).status_code == 403
        assert http.get(f"{page.url}gradio_api/info").json() == {"named_endpoints": {}, "unnamed_endpoints": {}}
        assert http.get(page.url).status_code == 200


def test_a_password_is_asked_for_if_wanted(serve: Any) -> None:
    page = serve(answering("x"), opened=False, launch={"auth": ("ann", "secret")})
    with httpx2.Client(timeout=PATIENCE) as http:
        assert http.get(f"{page.url}config").status_code == 401
        assert http.post(f"{page.url}gradio_api/queue/join", json={}).status_code == 401
