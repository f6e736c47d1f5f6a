"""A proxy between a client and a service on unix sockets, which cuts connections when a test wants it to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PIECE = 1 << 12  # bytes: small, so that a cut comes in the middle of things
DEADLINE = 30.0  # seconds for anything that is waited for


class Cutting:
    """Listens on ``path`` and passes on to ``target``.

    Attributes:
        after_request: is given what a client has sent, when it has been passed on; True cuts.
        bytes_of_answers: after so many from the service a connection is cut, and the next one after a quarter
            more; None: never.
        cuts: how many connections have been cut.
    """

    def __init__(self, path: Path, target: Path) -> None:
        self._path, self._target = path, target
        self.address = f"unix:{path}"
        self.after_request: Callable[[bytes], bool] = lambda data: False
        self.bytes_of_answers: int | None = None
        self.cuts = 0
        self._open: set[socket.socket] = set()
        self._is_closed = False
        self._lock = threading.Lock()
        self.resume()

    def resume(self) -> None:
        """Connections are taken, from now on."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen(16)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """All connections are cut, and no new one is taken."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink()
        self.cut()

    def cut(self) -> None:
        """All connections are cut."""
        with self._lock:
            for end in self._open:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self.cuts += bool(self._open)
            self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                service = socket.socket(socket.AF_UNIX)
                try:
                    service.connect(str(self._target))
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    self._open |= {client, service}
                threading.Thread(target=self._requests, args=(client, service), daemon=True).start()
                threading.Thread(target=self._answers, args=(service, client), daemon=True).start()

    def _requests(self, client: socket.socket, service: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(PIECE):
                service.sendall(data)
                if self.after_request(data):
                    self.cut()
        self._end(client, service)

    def _answers(self, service: socket.socket, client: socket.socket) -> None:
        left = self.bytes_of_answers
        with suppress(OSError):
            while data := service.recv(PIECE):
                client.sendall(data)
                if left is not None:
                    left -= len(data)
                    if left <= 0:
                        self.bytes_of_answers = self.bytes_of_answers and self.bytes_of_answers * 5 // 4
                        self.cut()
                        break
        self._end(client, service)

    def _end(self, *ends: socket.socket) -> None:
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open -= set(ends)
