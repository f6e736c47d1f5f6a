"""Who may call: over the unix socket its user, who may do everything; over TLS whoever holds a token, what it allows.

A call over the socket that comes with a token may do what the token allows, and no more.

Refused is refused the same way: nobody is told whether a token exists, has been revoked or has expired. Messages are
not parsed before that is settled.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import inspect
import logging
import re
import time
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Never, Protocol

from orchestrator.errors import AccessDenied, CellblockError, Overloaded
from orchestrator.sandbox.grpc_quiet import grpc
from orchestrator.service.attempts import Attempts, address_of
from orchestrator.service.failures import named
from orchestrator.service.quotas import UNLIMITED, Quotas
from orchestrator.service.scopes import ADMIN, AT_ONCE, NEEDS, OPEN, SCOPES
from orchestrator.store import StoredToken

LIFETIME = "lifetime_seconds"  # among a token's quotas: from its making on
MAX_KNOWN = 1024  # hashes of tokens that were good the last time: more than there are apps
_TOKEN = re.compile(r"cbk_[A-Za-z0-9_-]{43}")  # 32 bytes in Base64, see tokens.py
_BEARER = re.compile(rf"[Bb]earer ({_TOKEN.pattern})")
_NO_TOKEN = "there is no valid token with this call (metadata 'authorization: Bearer cbk_...')"  # noqa: S105
_log = logging.getLogger(__name__)
_DENIALS = ("no_token", "bad_token", "scope", "attempts")

Denials = Callable[[str], None]


def expires(token: StoredToken) -> float:
    """When it does, in seconds since the epoch; 0 for never."""
    return token.created + token.quotas[LIFETIME] if LIFETIME in token.quotas else 0.0


class Tokens(Protocol):
    """Where tokens are looked up."""

    async def token_of(self, hash: str) -> StoredToken | None:
        """The token with that hash (SHA-256, hexadecimal); None if there is none, or if it has been revoked."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose call it is.

    Attributes:
        name: of the token; ``local`` for the user of the unix socket.
        scopes: what it may do.
        quotas: how much of it.
    """

    name: str
    scopes: frozenset[str]
    quotas: Quotas = UNLIMITED

    def require(self, scope: str) -> None:
        """Goes on if it has that scope.

        Raises:
            AccessDenied: it has not.
        """
        if scope not in self.scopes:
            raise AccessDenied(f"this token has not the scope {scope!r}")

    def sees(self, owner: str) -> bool:
        """Whether a sandbox or run of that owner is its to see: its own, or with the scope ``admin`` all."""
        return owner == self.name or self.sees_all

    @property
    def sees_all(self) -> bool:
        """Whether every sandbox and run is."""
        return ADMIN in self.scopes


LOCAL = Caller("local", SCOPES)
_caller: ContextVar[Caller] = ContextVar("cellblock_caller")


def caller() -> Caller:
    """Whose the call under way is.

    Raises:
        AccessDenied: none is under way here, or it is one that anybody may make.
    """
    try:
        return _caller.get()
    except LookupError:
        raise AccessDenied("nobody is known to be calling") from None


def hash_of(token: str) -> str:
    """What is stored of a token and looked up. It has 256 random bits: no salt, and no slow hash, is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


class _Refused(Exception):
    """A call that must not be made: its status, the error for the caller, and which kind of denial it counts as."""

    def __init__(self, code: grpc.StatusCode, error: CellblockError, denial: str) -> None:
        assert denial in _DENIALS
        super().__init__(str(error))
        self.code, self.error, self.denial = code, error, denial


class Access(grpc.aio.ServerInterceptor):
    """The first interceptor of the server.

    Args:
        tokens: where they are looked up.
        on_denied: is told of each refusal: ``no_token``, ``bad_token``, ``scope`` or ``attempts``.
        attempts: counts what fails; by default with its own figures.
        clock: seconds since the epoch.
        ready: calls that were let in wait until it is set, but for those that are answered at once; default: it is.
    """

    def __init__(
        self,
        tokens: Tokens,
        on_denied: Denials = lambda denial: None,
        attempts: Attempts | None = None,
        clock: Callable[[], float] = time.time,
        ready: asyncio.Event | None = None,
    ) -> None:
        self._tokens = tokens
        self._on_denied = on_denied
        self._attempts = attempts or Attempts()
        self._clock = clock
        self._ready = ready
        self._known: OrderedDict[str, None] = OrderedDict()
        self._streams: defaultdict[str, set[asyncio.Timeout]] = defaultdict(set)  # by the token's name
        self._revoked: set[str] = set()  # for a look-up that began before; a name is never used again

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Puts the check before the method's handler; it is made there, where the peer is known."""
        handler = await continuation(handler_call_details)
        method: str = handler_call_details.method
        return handler if handler is None or method in OPEN else self._guarded(method, handler)

    def revoked(self, name: str) -> None:
        """Is told that a token has been revoked: ends what whoever holds it reads and serves now."""
        self._revoked.add(name)
        for limit in tuple(self._streams.get(name, ())):
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())

    # ---------------------------------------------------------------------------------------------------- handlers

    def _guarded(self, method: str, handler: Any) -> Any:
        if handler.response_streaming:
            return self._guarded_stream(method, handler)
        kept = handler.stream_unary if handler.request_streaming else handler.unary_unary
        parse = _parser(handler)

        async def answer(request: Any, context: Any) -> Any:
            who, _ = await self._admit(method, context)
            with _calling(who):
                given = kept(await _parsed(parse, request, context), context)
                return await given if inspect.isawaitable(given) else given

        make = (
            grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
        )
        return make(answer, _left_to_grpc(handler), handler.response_serializer)

    def _guarded_stream(self, method: str, handler: Any) -> Any:
        kept = handler.stream_stream if handler.request_streaming else handler.unary_stream
        parse = _parser(handler)

        async def stream(request: Any, context: Any) -> None:
            who, until = await self._admit(method, context)
            with _calling(who):
                given = kept(await _parsed(parse, request, context), context)
                await self._while_valid(who, until, given, context)

        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(stream, _left_to_grpc(handler), handler.response_serializer)
        return grpc.unary_stream_rpc_method_handler(stream, _left_to_grpc(handler), handler.response_serializer)

    async def _while_valid(self, who: Caller, until: float, given: Any, context: Any) -> None:
        """Streams can be long: one ends when its token expires or is revoked."""
        limit = asyncio.timeout(until - self._clock() if until else None)
        try:
            async with limit:
                self._streams[who.name].add(limit)
                await _written(given, context)
        except TimeoutError:
            if not limit.expired():
                raise
            await _refuse(context, _invalid("bad_token"))
        finally:
            self._forget(who.name, limit)

    def _forget(self, name: str, limit: asyncio.Timeout) -> None:
        self._streams[name].discard(limit)
        if not self._streams[name]:
            del self._streams[name]

    # ------------------------------------------------------------------------------------------------------ judging

    async def _admit(self, method: str, context: Any) -> tuple[Caller, float]:
        """Whose call it is and until when its token is valid. Else the call ends here."""
        who, until = await self._let_in(method, context)
        if self._ready and method not in AT_ONCE:
            await self._ready.wait()
        return who, until

    async def _let_in(self, method: str, context: Any) -> tuple[Caller, float]:
        try:
            who, until = await self._identified(context)
            if NEEDS.get(method, frozenset()).isdisjoint(who.scopes):
                error = AccessDenied(f"this token has not the scope for {method.rpartition('/')[2]}")
                raise _Refused(grpc.StatusCode.PERMISSION_DENIED, error, "scope")
            return who, until
        except _Refused as refused:
            self._on_denied(refused.denial)
            if refused.denial != "attempts":  # as many as there are
                _log.warning("refused %s from %s: %s", method, address_of(context.peer()), refused.denial)
            return await _refuse(context, refused)

    async def _identified(self, context: Any) -> tuple[Caller, float]:
        peer: str = context.peer()
        metadata = context.invocation_metadata()
        is_local = peer.startswith("unix:")
        if is_local and not _shows_token(metadata):
            return LOCAL, 0.0  # else it calls for somebody whose token it has been given, as the console does
        token = _token(metadata) if is_local or _is_encrypted(context) else ""
        return await self._holder(token, address_of(peer))

    async def caller_of(self, token: str, address: str) -> Caller:
        """Who holds that token. For what does not come by gRPC, such as a login; it counts the same attempts.

        Args:
            token: as it was given.
            address: of whom, without the port.

        Raises:
            AccessDenied: it is not valid.
            Overloaded: too many from there were not.
        """
        try:
            return (await self._holder(token if _TOKEN.fullmatch(token) else "", address))[0]
        except _Refused as refused:
            self._on_denied(refused.denial)
            raise refused.error from None

    async def _holder(self, token: str, address: str) -> tuple[Caller, float]:
        hashed = hash_of(token)
        is_known = hashed in self._known  # it is not kept waiting by others who fail from the same address
        if not is_known and (wait := self._attempts.take(address)):
            error = Overloaded("too many calls without a valid token", wait)
            raise _Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, error, "attempts")
        if not token:
            raise _invalid("no_token")
        found = await self._tokens.token_of(hashed)
        if found is None or not self._is_valid(found, hashed):
            self._known.pop(hashed, None)
            raise _invalid("bad_token")
        if not is_known:
            self._attempts.give_back(address)
        self._remember(hashed)
        return Caller(found.name, found.scopes & SCOPES, Quotas.of(found.quotas)), expires(found)

    def _is_valid(self, found: StoredToken, hashed: str) -> bool:
        same = hmac.compare_digest(found.hash.encode(), hashed.encode())
        is_revoked = found.revoked or found.name in self._revoked
        return same and not is_revoked and not 0 < expires(found) <= self._clock()

    def _remember(self, hashed: str) -> None:
        self._known[hashed] = None
        self._known.move_to_end(hashed)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)


def _shows_token(metadata: Any) -> bool:
    return any(key == "authorization" for key, _ in metadata or ())


def _token(metadata: Any) -> str:
    """What the call's metadata has for a token; empty if there is none, or what is none, or more than one."""
    values = [value for key, value in metadata or () if key == "authorization"]
    found = _BEARER.fullmatch(values[0]) if len(values) == 1 and isinstance(values[0], str) else None
    return found[1] if found else ""


def _is_encrypted(context: Any) -> bool:
    """However a listener came to be there: over a connection that can be read by others no token is good."""
    return b"ssl" in context.auth_context().get("transport_security_type", ())


def _invalid(denial: str) -> _Refused:
    return _Refused(grpc.StatusCode.UNAUTHENTICATED, AccessDenied(_NO_TOKEN), denial)


async def _refuse(context: Any, refused: _Refused) -> Never:
    await context.abort(refused.code, str(refused.error), tuple(named(refused.error)))
    raise AssertionError("abort() returned")


@contextmanager
def _calling(who: Caller) -> Iterator[None]:
    token = _caller.set(who)
    try:
        yield
    finally:
        _caller.reset(token)


def _parser(handler: Any) -> Callable[[bytes], Any] | None:
    """Of one request; a stream of requests is read, and parsed, by the method itself."""
    return None if handler.request_streaming else handler.request_deserializer


def _left_to_grpc(handler: Any) -> Any:
    return handler.request_deserializer if handler.request_streaming else None


async def _parsed(parse: Callable[[bytes], Any] | None, request: Any, context: Any) -> Any:
    if parse is None:
        return request
    try:
        return parse(request)
    except Exception:  # noqa: BLE001 - protobuf's own kinds differ by its implementation
        return await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is no message of this method's")


async def _written(given: Any, context: Any) -> None:
    """Sends what a method gives: it yields its messages, or writes them itself."""
    if not inspect.isasyncgen(given):
        written: Awaitable[None] | None = given
        return await written if written is not None else None
    async with aclosing(given) as messages:
        async for message in messages:
            await context.write(message)
    return None
