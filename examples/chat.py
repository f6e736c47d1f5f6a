"""A chat page: what is typed is a task for an agent of the service, and what it does is shown as it does it.

    python examples/chat.py [ADDRESS [PORT]]

ADDRESS is that of the service, by default this user's own; over TCP the token is taken from CELLBLOCK_TOKEN.
"""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from orchestrator import CellblockError, Client, FinalAnswerStep, Output

PAGE = """<!doctype html><meta charset="utf-8"><title>chat</title>
<style>body{font:16px sans-serif;max-width:40em;margin:auto} pre{white-space:pre-wrap} .answer{font-weight:bold}</style>
<main></main><form><input size="50" autofocus> <button>Send</button></form><script>
const form = document.forms[0], box = form.firstChild;
function say(kind, text) { // as text: what comes from a model or a sandbox is never taken for HTML
  const line = document.createElement("pre"); line.className = kind; line.textContent = text;
  document.querySelector("main").append(line);
}
form.onsubmit = async event => {
  event.preventDefault(); const task = box.value; box.value = ""; say("you", task);
  const answer = await fetch("/ask", {method: "POST", headers: {"Content-Type": "application/json"},
                                      body: JSON.stringify({task})});
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader(); let rest = "";
  for (let part; !(part = await reader.read()).done;) {
    const lines = (rest + part.value).split("\\n"); rest = lines.pop();
    for (const line of lines) { const {kind, text} = JSON.parse(line); say(kind, text); }
  }
};</script>"""


class Chat(BaseHTTPRequestHandler):
    """One page, one conversation: a task goes on where the last one that has an answer ended."""

    client: Client
    last = ""

    def do_GET(self) -> None:
        self._begin("text/html; charset=utf-8")
        self.wfile.write(PAGE.encode())

    def do_POST(self) -> None:
        # Pages of other sites cannot send this type without asking, nor under this name: they start no runs here.
        _, port = self.connection.getsockname()  # ours
        is_ours = self.headers["Host"] in (f"127.0.0.1:{port}", f"localhost:{port}")
        if not is_ours or self.headers["Content-Type"] != "application/json":
            return self.send_error(403)
        task = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["task"]
        self._begin("application/jsonl")
        try:
            run = self.client.runs.start(task, continues=Chat.last)
            for event in self.client.runs.follow(run.id):
                if isinstance(event, Output):
                    self._say("output", event.text)
                elif isinstance(event, FinalAnswerStep):
                    Chat.last = run.id
                    self._say("answer", event.output)
            if error := self.client.runs.get(run.id).error:
                self._say("error", error)
        except CellblockError as error:
            self._say("error", error)

    def _begin(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def _say(self, kind: str, text: Any) -> None:
        self.wfile.write(json.dumps({"kind": kind, "text": str(text)}).encode() + b"\n")


def main(address: str = "", port: str = "8090") -> None:
    """Serves the page on this machine alone, until Ctrl-C."""
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Chat)
    with Client(address, token=os.environ.get("CELLBLOCK_TOKEN", "")) as Chat.client, server:
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
