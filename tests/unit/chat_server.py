"""A real HTTP server on 127.0.0.1 that gives scripted answers: the other end of every model behind HTTP.

::

    with serving(completion("hello"), stream("hel", "lo"), failure(429, "busy", {"Retry-After": "1"})) as server:
        model = OpenAIServerModel("m", api_base=server.url, api_key="k")
        ...
        assert server.requests[0].body["messages"] == [...]

An entry of the script is an ``Answer``, or a function from the ``Request`` to one (see ``refusing``). Entries are given
in order, the last one again and again, whatever the path and the method.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

WAIT = 30.0  # seconds that anything here may take before the test has failed

Ending = Literal["complete", "drop", "reset", "hold", "endless"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server does with a request.

    Attributes:
        pieces: of the body, each flushed before the next.
        status: of HTTP.
        headers: over those that the server sends itself.
        ending: what follows the pieces. ``complete``: the regular end. ``drop``: the connection is closed there.
            ``reset``: the same, but without a farewell, so that the client is told "connection reset by peer".
            ``hold``: nothing more, until the client hangs up. ``endless``: the last piece, again and again, until then.
        head: False: no status line and no headers are sent either; for a server that never begins to answer.
        framed: False: no length is told, the body ends with the connection, so an early end looks like the regular one.
        pause: seconds between pieces.
    """

    pieces: tuple[bytes, ...]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    ending: Ending = "complete"
    head: bool = True
    framed: bool = True
    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent. ``headers`` by their names in lower case; ``body`` is the parsed JSON, None for none."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


Script = Answer | Callable[[Request], Answer]


@dataclass
class ChatServer:
    """A running server; made by ``serving``.

    Attributes:
        address: ``http://127.0.0.1:port``; any path below it is answered.
        requests: all so far, oldest first.
        asked: set when a request has been read.
        left: set when a client has hung up before its answer was over.
    """

    script: Sequence[Script]
    address: str = ""
    requests: list[Request] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        """The base URL for clients of OpenAI's API."""
        return f"{self.address}/v1"

    @property
    def bodies(self) -> list[Any]:
        """The bodies of all requests so far."""
        return [request.body for request in self.requests]

    def asked_again(self, times: int, seconds: float) -> bool:
        """Waits until so many requests have been read."""
        with self._lock:
            return self._lock.wait_for(lambda: len(self.requests) >= times, seconds)

    def answer_to(self, request: Request) -> Answer:
        """The next entry of the script; the request is recorded."""
        with self._lock:
            entry = self.script[min(len(self.requests), len(self.script) - 1)]
            self.requests.append(request)
            self._lock.notify_all()
        self.asked.set()
        return entry if isinstance(entry, Answer) else entry(request)


@contextmanager
def serving(*script: Script) -> Iterator[ChatServer]:
    """A server with this script, until the block ends; answers that are held or endless end then."""
    server = ChatServer(script)
    http = _Http(("127.0.0.1", 0), _Handler)
    http.chat = server
    server.address = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        http.shutdown()
        thread.join(WAIT)
        http.server_close()


# -------------------------------------------------------------------------------------------------------------- answers


def whole(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """``body`` in one piece: text as it is, anything else as JSON."""
    text = body if isinstance(body, str) else json.dumps(body)
    return Answer((text.encode(),), status, headers or {})


def completion(content: Any = None, tool_calls: Sequence[Any] = (), **message: Any) -> Answer:
    """A chat completion of 7 tokens read and 3 written. ``message``: further fields of the message."""
    said = {"role": "assistant", "content": content, **({"tool_calls": list(tool_calls)} if tool_calls else {})}
    choice = {"index": 0, "finish_reason": "tool_calls" if tool_calls else "stop", "message": said | message}
    return whole({"id": "1", "object": "chat.completion", "choices": [choice], "usage": USAGE})


USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def tool_call(name: Any, arguments: Any = "{}", id: Any = "call_1", **more: Any) -> dict[str, Any]:
    """A call, or (``index=`` in ``more``) a piece of one, in a reply."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def chunk(content: Any = None, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """One chunk of a streamed completion. ``delta``: further fields, such as ``tool_calls=[…]``."""
    said = delta if content is None else {"content": content, **delta}
    return {
        "id": "1",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": said, "finish_reason": finish}],
    }


def stream(*pieces: str | dict[str, Any], ending: Ending = "complete", finish: str | None = "stop") -> Answer:
    """A streamed completion: text, or chunks as they are; then ``finish``, the usage, and ``[DONE]``.

    With another ``ending`` than ``complete`` nothing of these three is sent.
    """
    chunks = [chunk(piece) if isinstance(piece, str) else piece for piece in pieces]
    if ending == "complete":
        chunks += [chunk(finish=finish), {"id": "1", "choices": [], "usage": USAGE}]
    return events(
        *(json.dumps(piece) for piece in chunks), *(["[DONE]"] if ending == "complete" else []), ending=ending
    )


def events(*data: str, ending: Ending = "complete", framed: bool = True) -> Answer:
    """Server-sent events with these data."""
    pieces = tuple(f"data: {text}\n\n".encode() for text in data)
    return Answer(pieces, headers={"Content-Type": "text/event-stream"}, ending=ending, framed=framed)


def failure(status: int, message: str = "no", headers: Mapping[str, str] | None = None, **error: Any) -> Answer:
    """An error in OpenAI's form. ``error``: further fields, such as ``code=`` and ``param=``."""
    return whole({"error": {"message": message, **error}}, status, headers)


def refusing(parameter: str, answer: Answer, message: str | None = None) -> Callable[[Request], Answer]:
    """400 to requests with ``parameter``, in OpenAI's words or with just this message; ``answer`` to others."""
    refusal = (
        failure(
            400,
            f"Unsupported parameter: '{parameter}' is not supported with this model.",
            code="unsupported_parameter",
            param=parameter,
            type="invalid_request_error",
        )
        if message is None
        else failure(400, message)
    )
    return lambda request: refusal if parameter in request.body else answer


SILENT = Answer((), ending="hold", head=False)  # reads the request and never says a word
RESET = Answer((), ending="reset", head=False)  # reads the request and is gone


# ----------------------------------------------------------------------------------------------------------- the server


class _Http(ThreadingHTTPServer):
    chat: ChatServer
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or the body waits some 40 ms until the client has acknowledged the head
    server: _Http

    def do_POST(self) -> None:
        try:
            self._give(self.server.chat.answer_to(self._request()))
        except OSError:  # the client hung up while it was written to
            self._hung_up()

    do_GET = do_POST

    def _request(self) -> Request:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        return Request(self.command, self.path, headers, json.loads(data) if data else None)

    def _give(self, answer: Answer) -> None:
        if answer.head:
            self._head(answer)
        for piece in answer.pieces:
            self._piece(answer, piece)
        while answer.ending == "endless" and not self.server.chat.over.is_set():
            self._piece(answer, answer.pieces[-1])
        if answer.ending == "hold":
            self._until_the_client_leaves()
        if answer.ending == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        if answer.ending != "complete" or not answer.framed:
            self.close_connection = True
        elif _chunked(answer):
            self.wfile.write(b"0\r\n\r\n")

    def _head(self, answer: Answer) -> None:
        self.send_response(answer.status)
        headers = {"Content-Type": "application/json"}
        if _chunked(answer):
            headers["Transfer-Encoding"] = "chunked"
        elif answer.framed:
            headers["Content-Length"] = str(len(b"".join(answer.pieces)))
        else:
            headers["Connection"] = "close"
        for name, value in (headers | dict(answer.headers)).items():
            self.send_header(name, value)
        self.end_headers()

    def _piece(self, answer: Answer, piece: bytes) -> None:
        if answer.pause:
            self.server.chat.over.wait(answer.pause)
        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if _chunked(answer) and piece else piece)

    def _until_the_client_leaves(self) -> None:
        """Ends with the test, too."""
        while not self.server.chat.over.is_set():
            readable, _, _ = select.select([self.connection], [], [], 0.01)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                self._hung_up()
                return

    def _hung_up(self) -> None:
        self.server.chat.left.set()
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _chunked(answer: Answer) -> bool:
    return answer.framed and (len(answer.pieces) != 1 or answer.ending != "complete")
