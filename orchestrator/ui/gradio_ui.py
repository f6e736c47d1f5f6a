"""``GradioUI``: an agent in the browser. The page; what it shows is made in transcript.py."""

from __future__ import annotations

import asyncio
import html
import importlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import ModuleType
from typing import Any

from orchestrator.agents import MultiStepAgent
from orchestrator.errors import AgentError, CellblockError, ConfigError, missing_extra
from orchestrator.portal import Portal
from orchestrator.ui.guard import LOOPBACK, Guard
from orchestrator.ui.uploads import DEFAULT_TYPES, MAX_PICTURE, MAX_VALUES
from orchestrator.ui.visitors import Key, Visitor, Visitors, check_message

MAX_VISITORS = 16  # at the same time; each has a sandbox
MAX_WAITING = 32  # messages that wait for their turn
PAUSE = 0.15  # seconds between two looks at a run: a browser that is told more often is busy with nothing else
_FONT = ("ui-sans-serif", "system-ui", "sans-serif")  # of the visitor's own system: nothing is fetched for them
_FONT_MONO = ("ui-monospace", "Consolas", "monospace")
_CACHE = (600, 3_600)  # seconds: how often the server's own copies of uploads are looked at, and how old they may get
_CSS = """
.cellblock-page {max-width: 60rem; margin: 0 auto;}
.cellblock-page img {max-width: 100%; height: auto;}
.cellblock-page pre {overflow-x: auto;}
"""


class GradioUI:
    """An agent in the browser, with every step as it happens. Needs ``pip install 'cellblock[gradio]'``.

    Each visitor talks to a copy of the agent, with a memory and a sandbox of its own, which is closed when the page is.
    Tools, the model and callbacks are the same objects for all: what they keep, they keep for all. Whatever a model, a
    sandbox or a tool says is shown as inert text.

    Args:
        agent: its copies do the work; it itself is not touched, and stays the caller's to close.
        file_upload_folder: where files that visitors upload are kept while they are there; None: none are taken.
        reset_agent_memory: each message begins a new conversation, instead of going on with the one before.
        max_visitors: at the same time.
        file_types: endings of the files that are taken, with their dots.

    Raises:
        AgentError: the agent works in a sandbox that it was lent, which the visitors would share.
        ConfigError: an argument is out of range.
    """

    def __init__(
        self,
        agent: MultiStepAgent,
        file_upload_folder: str | Path | None = None,
        reset_agent_memory: bool = False,
        *,
        max_visitors: int = MAX_VISITORS,
        file_types: Sequence[str] = DEFAULT_TYPES,
    ) -> None:
        if max_visitors < 1:
            raise ConfigError(f"max_visitors is {max_visitors}; it must be at least 1")
        self.agent = agent
        self.file_upload_folder = None if file_upload_folder is None else Path(file_upload_folder)
        self.file_types = tuple(file_types)
        self.max_visitors = max_visitors
        self._page: Any = None  # while it is served by launch()
        self._visitors = Visitors(
            agent, limit=max_visitors, resets=reset_agent_memory, folder=self.file_upload_folder, types=self.file_types
        )

    def launch(self, share: bool = False, *, allowed_hosts: Sequence[str] | None = None, **kwargs: Any) -> Any:
        """Serves the page, and blocks until Ctrl-C unless ``prevent_thread_lock=True`` is given; then ``close()`` it.

        Args:
            share: also at a public address of gradio's, for everybody who has the link. Give ``auth``, too.
            allowed_hosts: names by which the server may be called, without ports. Default: those of this host while it
                is served to this host alone and not shared, else any. Behind a proxy: the public name.
            kwargs: as of ``gradio.Blocks.launch``; ``server_name`` is ``127.0.0.1`` by default. ``auth=(name,
                password)`` asks for a login.

        Raises:
            ConfigError: gradio is not installed.
        """
        gradio = _gradio()
        name = kwargs.get("server_name") or "127.0.0.1"
        is_local = not share and name in ("127.0.0.1", "localhost", "::1")
        hosts = allowed_hosts if allowed_hosts is not None else LOOPBACK if is_local else ()
        settings = _settings(gradio, self.file_upload_folder is not None) | {"server_name": name} | kwargs
        settings["app_kwargs"] = self._guarded(settings.get("app_kwargs") or {}, hosts)
        self._page = self.create_app()
        try:
            return self._page.launch(share=share, **settings)
        finally:
            if not kwargs.get("prevent_thread_lock"):
                self.close()

    def create_app(self) -> Any:
        """The page as ``gradio.Blocks``, to be launched or mounted by the caller.

        ``launch()`` above also sets what a page may fetch and who may use it; see guard.py for who mounts it.

        Raises:
            ConfigError: gradio is not installed.
        """
        gradio = _gradio()
        name = self.agent.name or "Agent"
        with gradio.Blocks(title=name, analytics_enabled=False, delete_cache=_CACHE) as page:
            with gradio.Column(elem_classes="cellblock-page"):
                chat = _chat(gradio, name)
                entry = self._entry(gradio)
                with gradio.Row():
                    stop = gradio.Button("Stop", variant="stop", interactive=False, elem_id="stop")
                    again = gradio.Button("Start over", elem_id="start-over")
            self._connect(gradio, page, chat, entry, stop, again)
        page.queue(max_size=MAX_WAITING, api_open=False)
        return page

    def close(self) -> None:
        """Ends serving; all visitors leave: their runs end, their agents are closed, their files removed. Blocks."""
        if self._page is not None:
            self._page.close(verbose=False)
            self._page = None
        Portal.run(self._visitors.close())

    def _entry(self, gradio: ModuleType) -> Any:
        common: dict[str, Any] = {
            "label": "Task",
            "placeholder": "What is to be done?",
            "lines": 1,
            "max_lines": 12,
            "autofocus": True,
            "elem_id": "task",
            "submit_btn": True,
        }
        if self.file_upload_folder is None:
            return gradio.Textbox(**common)
        types = list(self.file_types)
        return gradio.MultimodalTextbox(**common, file_types=types, file_count="multiple", sources=["upload"])

    def _connect(self, gradio: ModuleType, page: Any, chat: Any, entry: Any, stop: Any, again: Any) -> None:
        def entry_with(text: str, interactive: bool) -> Any:
            return type(entry)(value=text, interactive=interactive)

        async def send(given: Any, request: Any) -> AsyncGenerator[tuple[Any, ...], None]:
            text, files = _given(given)
            kept = ""
            try:
                async with aclosing(self._updates(_key(request), text, files)) as updates:
                    async for messages in updates:
                        yield messages, entry_with("", False), gradio.Button(interactive=True)
            except CellblockError as error:
                gradio.Warning(html.escape(str(error)), title="Not sent")
                kept = text
            yield gradio.skip(), entry_with(kept, True), gradio.Button(interactive=False)

        async def halt(request: Any) -> None:
            await Portal.carried(self._stop(_key(request)))

        async def restart(request: Any) -> tuple[Any, ...]:
            await Portal.carried(self._visitors.leave(_key(request)))
            return [], gradio.Button(interactive=False)

        async def leave(request: Any) -> None:
            await Portal.carried(self._visitors.leave(_key(request)))

        for function in (send, halt, restart, leave):  # gradio gives a request to an argument of this type
            function.__annotations__["request"] = gradio.Request
        hidden: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        entry.submit(send, entry, [chat, entry, stop], concurrency_limit=self.max_visitors, **hidden)
        # Not in the queue: to stop must not wait for what is to be stopped.
        stop.click(halt, None, None, queue=False, **hidden)
        for event in (again.click, chat.clear):
            event(restart, None, [chat, stop], queue=False, **hidden)
        page.unload(leave)

    async def _updates(self, key: Key, text: str, files: Sequence[str]) -> AsyncGenerator[list[dict[str, Any]], None]:
        """The conversation again and again while the run goes on, or the visitor is there; leaving it stops the run."""
        check_message(text, files)
        visitor: Visitor = await Portal.carried(self._visitors.get(key))
        work = asyncio.ensure_future(Portal.carried(visitor.work(text, files)))
        shown: list[dict[str, Any]] | None = None
        try:
            while True:
                await asyncio.wait({work}, timeout=PAUSE)
                is_done = work.done()  # before the look: what is seen then is all
                messages = await Portal.carried(self._look(key, visitor))
                if messages is None:
                    return
                if messages != shown:
                    yield messages
                shown = messages
                if is_done:
                    work.result()
                    return
        finally:
            work.cancel()

    async def _stop(self, key: Key) -> None:
        visitor = self._visitors.known(key)
        if visitor is not None:
            visitor.stop()

    async def _look(self, key: Key, visitor: Visitor) -> list[dict[str, Any]] | None:
        """The conversation; None if it was started over meanwhile, and its words must not come back."""
        return visitor.messages() if self._visitors.known(key) is visitor else None

    def _guarded(self, app_kwargs: Mapping[str, Any], hosts: Sequence[str]) -> dict[str, Any]:
        from starlette.middleware import Middleware  # comes with gradio

        guard = Middleware(Guard, hosts=hosts, uploads=self.file_upload_folder is not None)
        return {**app_kwargs, "middleware": [guard, *app_kwargs.get("middleware", ())]}


def _gradio() -> ModuleType:
    try:
        return importlib.import_module("gradio")  # a large one: only who makes a page needs it
    except ImportError:
        raise missing_extra("GradioUI", "gradio", "gradio") from None


def _settings(gradio: ModuleType, takes_files: bool) -> dict[str, Any]:
    """For ``launch``; the caller may set others."""
    return {
        "theme": gradio.themes.Default(font=_FONT, font_mono=_FONT_MONO),
        "css": _CSS,
        "footer_links": [],
        "run_history": False,
        "ssr_mode": False,
        "enable_monitoring": False,
        "mcp_server": False,
        "pwa": False,
        "max_file_size": max(MAX_PICTURE, MAX_VALUES) if takes_files else 1,
        "state_session_capacity": 1_000,  # sessions whose state gradio keeps; there is next to none
    }


def _chat(gradio: ModuleType, name: str) -> Any:
    return gradio.Chatbot(
        label=name,
        height="calc(100dvh - 15rem)",  # what is typed stays in view, and the chat scrolls by itself
        min_height=320,
        latex_delimiters=[],
        sanitize_html=True,  # nothing in the messages needs it: a second wall
        allow_tags=False,
        buttons=[],  # what they copy is the text with its entities
        feedback_options=None,
        layout="panel",
        elem_id="chat",
    )


def _given(given: Any) -> tuple[str, list[str]]:
    """Text and paths of what was sent."""
    if isinstance(given, Mapping):
        return str(given.get("text") or ""), [str(path) for path in given.get("files") or ()]
    return str(given or ""), []


def _key(request: Any) -> Key:
    if not request.session_hash:
        raise AgentError("this page has no session; load it again")
    return request.username or "", request.session_hash
