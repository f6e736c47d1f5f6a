"""Who is logged in at the console.

A session is two secrets: one in a cookie that no script reads, one that the page keeps and sends as a header. Cookies
of 127.0.0.1 go to every port of it, so whoever listens on another one may come to see the first; it is nothing without
the second, which never leaves the page's own origin.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from orchestrator.errors import AccessDenied, Overloaded

IDLE_SECONDS = 8 * 3600.0  # a working day at the desk; a page that is open asks all the time
LIFETIME_SECONDS = 7 * 86400.0  # then somebody logs in again, however busy the page was
MAX_SESSIONS = 64  # people and their browsers; the one that has been idle longest makes room
MAX_OWN = 16  # of them with one token, whose own makes room then: nobody logs out the others by logging in
LINK_SECONDS = 300.0  # to open a link that was printed in a terminal
MAX_LINKS = 16  # that have not been used; the oldest makes room
MAX_STREAMS = 16  # of one session: a browser opens six connections to one address, a person a few browsers' tabs
SECRET_BYTES = 32  # random ones: nobody guesses that


@dataclass(eq=False, slots=True)
class Session:
    """Somebody who is logged in.

    Attributes:
        token: that the API is called with; empty: as the user of the service's socket.
        csrf: the secret that the page sends with each request.
        until: when it ends in any case, on the clock of the sessions.
        used: when it last was used, on the same.
        streams: that are open.
        ended: is set when it is good no more; its streams end then.
    """

    token: str = field(repr=False)
    until: float
    used: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(SECRET_BYTES), repr=False)
    streams: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @contextmanager
    def stream(self) -> Iterator[None]:
        """One of its streams, until the end of the block.

        Raises:
            Overloaded: it has as many as it may have.
        """
        if self.streams >= MAX_STREAMS:
            raise Overloaded(f"this login has {MAX_STREAMS} streams open: close some of its pages", 5.0)
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1


class ConsoleSessions:
    """All of them, in memory: a service that starts again has forgotten them.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sessions: OrderedDict[str, Session] = OrderedDict()  # by the cookie; the one used last at the end
        self._links: OrderedDict[str, float] = OrderedDict()  # codes, and until when they are good

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, token: str) -> tuple[str, Session]:
        """A new session, and the cookie's value.

        Args:
            token: that the service has found good; empty: a session of the socket's user.
        """
        now, cookie = self._clock(), secrets.token_urlsafe(SECRET_BYTES)
        session = Session(token, now + LIFETIME_SECONDS, now)
        self._drop_old(now)
        own = [known for known, other in self._sessions.items() if other.token == token]
        if len(own) >= MAX_OWN:
            self.end(own[0])
        while len(self._sessions) >= MAX_SESSIONS:
            self.end(next(iter(self._sessions)))
        self._sessions[cookie] = session
        return cookie, session

    def link(self) -> str:
        """A code that logs in the user of the service's socket, once, in the next 5 minutes."""
        code = secrets.token_urlsafe(SECRET_BYTES)
        self._links[code] = self._clock() + LINK_SECONDS
        while len(self._links) > MAX_LINKS:
            self._links.popitem(last=False)
        return code

    def redeem(self, code: str) -> tuple[str, Session]:
        """The session that a code of ``link()`` stands for, and the cookie's value.

        Raises:
            AccessDenied: it is none, has been used, or is too old.
        """
        if self._links.pop(code, -1.0) <= self._clock():
            raise AccessDenied("this link has been used, or is too old: ask for another one")
        return self.begin("")

    def find(self, cookie: str, csrf: str) -> Session:
        """The session of a request.

        Raises:
            AccessDenied: there is none.
        """
        now = self._clock()
        self._drop_old(now)
        session = self._sessions.get(cookie)
        if session is None or not hmac.compare_digest(session.csrf.encode(), csrf.encode("utf-8", "replace")):
            raise AccessDenied("nobody is logged in here")
        session.used = now
        self._sessions.move_to_end(cookie)
        return session

    def end(self, cookie: str) -> None:
        """It is good no more; one that is none is no error."""
        if session := self._sessions.pop(cookie, None):
            session.ended.set()

    def end_all(self) -> None:
        """None is, and no link."""
        self._links.clear()
        for cookie in tuple(self._sessions):
            self.end(cookie)

    def _drop_old(self, now: float) -> None:
        """Those that have been idle for too long, or were begun too long ago; one with open streams is not idle."""
        for cookie, session in tuple(self._sessions.items()):
            is_idle = now - session.used > IDLE_SECONDS and not session.streams
            if is_idle or now > session.until:
                self.end(cookie)
