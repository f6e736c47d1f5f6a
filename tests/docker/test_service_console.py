"""The console of a real service, in a real browser: what agents and sandboxes do in containers is seen and steered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from orchestrator import Config
from tests.browsing import PATIENCE, Page, chromium, needs_browser
from tests.docker.service_process import SETTINGS, ServiceProcess, service_in, steps
from tests.waiting import eventually

pytestmark = [pytest.mark.docker, needs_browser]
ENDLESS = "print('on', flush=True)\nwhile True: pass"
PLOT = (
    "import matplotlib.pyplot as plt\nfigure, axes = plt.subplots(figsize=(4, 2), dpi=100)\n"
    "axes.bar(['a', 'b'], [1, 2])\nprint('drawn')\nfigure"
)
SCRIPT = "<script>window.pwned=1</script><img src=x onerror='window.pwned=1'>"
HOSTILE = f'''
bad = """{SCRIPT}"""
class Rich:
    def _repr_html_(self): return bad + "<iframe src='http://127.0.0.1:9/'></iframe>"
    def _repr_svg_(self): return "<svg xmlns='http://www.w3.org/2000/svg' onload='window.pwned=1'>" + bad + "</svg>"
print("\\x1b[31mred\\x1b[0m \\x1b]8;;http://127.0.0.1:9/\\x07link\\x1b]8;;\\x07 \\u202egnp.exe " + bad)
Rich()
'''
FAILS = f'raise ValueError("""{SCRIPT}\\x1b[2J""")'


# A tool of the operator's, which somebody is asked about.
POST = '''
def post(to: str, raw: bytes) -> str:
    """Sends it.

    Args:
        to: whom
        raw: what
    """
    return f"sent {raw!r} to {to}"
'''
MAIL = """
[agents.mail]
model = "scripted"
tools = ["desk:post"]

[[policy]]
tool = "post"
action = "ask"
"""


@pytest.fixture(scope="module")
def service(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("console")
    (folder / "desk.py").write_text(POST)
    settings = SETTINGS.replace("[agents.default]", '[agents.default]\nimports = ["matplotlib.*"]') + MAIL
    with service_in(folder, settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture
def page(service: ServiceProcess, driver: webdriver.Chrome) -> Page:
    return Page(driver, service.cellblock("console").stdout.strip())


def begin(page: Page, task: str, agent: str = "default") -> None:
    """A run, by the keyboard alone."""
    page.press("n")
    page.until("select", agent)
    page.press(task, Keys.TAB, agent[0])  # which chooses it
    page.click(".new button.primary", "Start")
    page.until(".card.task")


def run_here(page: Page, code: str) -> None:
    """In the sandbox that is shown."""
    page.until("#prompt").send_keys(code)
    page.send()


def test_a_run_is_begun_its_steps_come_and_its_plot_is_seen(page: Page) -> None:
    begin(page, steps(PLOT, "final_answer({'drawn': 2})"))
    page.until(".step pre.output", "drawn")
    page.until(".card.answer", "drawn")
    page.until(".page .badge", "succeeded")
    assert [step.text.split("\n")[0] for step in page.all(".step h3")] == ["Step 1", "Step 2"]
    assert len(page.all(".step img.picture")) == 1
    page.driver.execute_script("document.querySelector('img.picture').scrollIntoView()")
    width = "const i = document.querySelector('img.picture'); return i.complete && i.naturalWidth"
    eventually(lambda: page.driver.execute_script(width) == 400, "the plot is not there", PATIENCE)
    page.shot("service-run")
    page.check_inert()


def test_what_runs_is_seen_as_it_comes_interrupted_and_gone_on_with(page: Page) -> None:
    begin(page, steps("n = 1", ENDLESS))
    page.until(".step.live pre.output", "on")
    page.until(".page .badge", "running")
    for _ in range(2):
        page.press("i")
        page.press(Keys.ENTER)
        page.until(".page .badge", "interrupted")
        page.until_gone(".step.live")
        if not page.all(".card.quiet"):
            page.click(".page button", "Resume")
            page.until(".card.quiet", "The run goes on")
            page.until(".step.live pre.output", "on")


def test_a_question_is_approved_and_another_one_refused(page: Page) -> None:
    begin(page, steps("print('approved')", "print('refused')", "final_answer(3)"), "careful")
    for code, answer in (("'approved'", "Approve"), ("'refused'", "Refuse"), ("final_answer", "Approve")):
        page.until(".question:has(.answers) .code", code)
        page.until(".page .badge", "waiting")
        page.click(".question button", answer)
        page.until(".question .decided", f"{answer}d by local")
        page.until_gone(".question .answers button:disabled")
    page.until(".card.answer", "3")
    page.until(".step pre.output", "approved")
    assert not [output for output in page.all(".step pre.output") if "refused" in output.text]


def test_a_call_is_approved_with_all_of_its_arguments_to_be_seen(page: Page) -> None:
    begin(page, steps("print(post('boss', b'\\x00\\xff'))", "final_answer('done')"), "mail")
    asked = page.until(".question", "May this tool be called?")
    assert "post(\n    to = 'boss',\n    raw = b'\\x00\\xff',\n)" in asked.text
    page.click(".question button", "Approve")
    page.until(".question .decided", "Approved by local")
    page.until(".step pre.output", "sent b'\\x00\\xff' to boss")
    page.until(".call.good .tool", "post")
    page.until(".card.answer", "done")


def test_what_a_container_sends_stays_text(page: Page) -> None:
    begin(page, steps(HOSTILE, FAILS, "final_answer(bad)"))
    page.until(".card.answer", "<script>")
    page.until(".page .badge", "succeeded")
    for details in page.all("#detail details"):
        page.driver.execute_script("arguments[0].open = true", details)
    for place in ("pre.output", "details.source pre", "pre.error", "details.told pre", ".code"):
        page.until(place, SCRIPT)
    printed = page.until("pre.output", "red").text
    assert printed.startswith("red link \\u202egnp.exe <script>")
    assert "\x1b" not in page.text()
    foreign = "#detail :is(script, iframe, svg, link, object, embed, style, img:not(.picture), [onerror], [onload])"
    assert page.all(foreign) == []
    page.shot("service-hostile")
    page.check_inert()


def test_a_sandbox_is_made_rolled_back_branched_interrupted_and_closed(page: Page) -> None:
    page.go("#/sandboxes")
    page.click("#side-tools button", "New sandbox")
    run_here(page, "x = 1")
    page.until(".tree li[aria-current] .name", "execution 1")
    run_here(page, "x = 2; open('f', 'w').write('2')")
    page.until(".tree li[aria-current] .name", "execution 2")
    page.click(".aside button", "What holds it")
    page.until(".layers .badge", "holds")
    page.shot("service-sandbox")
    page.click(".tree li:nth-child(2) button", "Roll back")
    page.until(".toast", "as it was then")
    page.until(".tree li[aria-current] .name", "execution 1")
    run_here(page, "print('x is', x)\ntry: open('f')\nexcept FileNotFoundError: print('there is no file')\nx + 6")
    page.until(".executions pre.output", "x is 1\nthere is no file")
    page.until(".executions .step:last-child .used", "code")
    assert [shown.text for shown in page.all(".executions .step:last-child .results pre")] == ["7"]
    page.click(".tree li[aria-current] button", "Branch")
    page.until(".facts", "what it was forked from")
    page.until("#list a[aria-current]", "branch")
    run_here(page, f"print('in the branch', x)\n{ENDLESS}")
    page.until(".executions pre.output", "in the branch 1")
    page.click(".actions button", "Interrupt")
    page.until(".executions .note.bad", "interrupted")
    for words in ("Close", "Really close?"):
        page.until(".actions button", words).click()  # as with a mouse: it is the one that was asked that is sure
    eventually(lambda: len(page.all("#list li")) == 1, "the branch is closed", PATIENCE)
    page.check_inert()
