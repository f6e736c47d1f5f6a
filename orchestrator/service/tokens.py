"""Tokens over the API: made, listed, revoked. For the scope ``admin``; the socket's user has it."""

from __future__ import annotations

import math
import re
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from grpc.aio import ServicerContext
from orchestrator_api.v1 import orchestrator_pb2 as pb
from orchestrator_api.v1 import orchestrator_pb2_grpc

from orchestrator.audit import Journal
from orchestrator.audit.records import milliseconds
from orchestrator.audit.service_records import TokenCreated, TokenRevoked
from orchestrator.errors import AuditError, ConfigError
from orchestrator.sanitise import one_line
from orchestrator.service.access import LIFETIME, LOCAL, Access, Tokens, caller, expires, hash_of
from orchestrator.service.quotas import Accounts, Quotas
from orchestrator.service.scopes import ADMIN, SCOPES
from orchestrator.store import StoredToken

PREFIX = "cbk_"  # so that scanners of secrets, and people, know one when they see it
SECRET_BYTES = 32  # random ones: nobody guesses that
MAX_LIFETIME = 100 * 365 * 86400.0  # seconds; longer is for ever
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class TokenStore(Tokens, Protocol):
    """Where tokens are kept: ``orchestrator.store.Store``."""

    async def add_token(self, token: StoredToken) -> None:
        """Keeps one. Raises a CellblockError if there is or was one of that name."""

    async def tokens(self) -> Sequence[StoredToken]:
        """All of them, those that were revoked too."""

    async def revoke(self, name: str) -> None:
        """It is good no more. Raises NotFound if there is none."""


def new_secret() -> str:
    """A token as its holder has it."""
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


class TokenMethods(orchestrator_pb2_grpc.ServiceServicer):
    """The API's ``CreateToken``, ``ListTokens`` and ``RevokeToken``.

    Args:
        store: where tokens are kept.
        access: is told of each that is revoked.
        accounts: what they have used.
        clock: seconds since the epoch.
        journal: for what is done with them; default: nowhere.
    """

    def __init__(
        self,
        store: TokenStore,
        access: Access,
        accounts: Accounts,
        clock: Callable[[], float] = time.time,
        journal: Journal | None = None,
    ) -> None:
        self._token_store = store
        self._access = access
        self._accounts = accounts
        self._clock = clock
        self._journal = journal or Journal()

    async def CreateToken(self, request: pb.NewToken, context: ServicerContext[Any, Any]) -> pb.CreatedToken:
        """Makes one; its secret is in the answer and nowhere else."""
        caller().require(ADMIN)
        secret = new_secret()
        token = _made(request, secret, self._clock())
        await self._token_store.add_token(token)
        try:
            await self._journal.record(_created(token, caller().name))
        except AuditError:
            await self._token_store.revoke(token.name)  # nobody has been shown it
            raise
        return pb.CreatedToken(token=secret, info=await self._info(token))

    async def ListTokens(self, request: pb.ListTokensRequest, context: ServicerContext[Any, Any]) -> pb.TokenList:
        """All of them, and what they have used today."""
        caller().require(ADMIN)
        return pb.TokenList(tokens=[await self._info(token) for token in await self._token_store.tokens()])

    async def RevokeToken(self, request: pb.TokenName, context: ServicerContext[Any, Any]) -> pb.Done:
        """Has it be good for nothing from now on; again is the same. That is done though it cannot be recorded."""
        caller().require(ADMIN)
        try:
            if any(token.name == request.name for token in await self._token_store.tokens()):
                await self._journal.record(TokenRevoked(request.name, caller().name))
        finally:
            await self._token_store.revoke(request.name)
            self._access.revoked(request.name)
        return pb.Done()

    async def _info(self, token: StoredToken) -> pb.TokenInfo:
        account = await self._accounts.account(token.name)
        quotas = Quotas.of(token.quotas)
        return pb.TokenInfo(
            name=token.name,
            scopes=sorted(token.scopes),
            quotas=pb.TokenQuotas(
                sandboxes=quotas.sandboxes, cpu_seconds=quotas.cpu_seconds, run_minutes=quotas.run_minutes
            ),
            created=token.created,
            expires=expires(token),
            revoked=token.revoked,
            cpu_seconds_today=account.cpu_seconds,
            run_minutes_today=account.run_seconds / 60,
        )


def _created(token: StoredToken, by: str) -> TokenCreated:
    quotas, lifetime = Quotas.of(token.quotas), token.quotas.get(LIFETIME)
    cpu, run = quotas.cpu_seconds, quotas.run_minutes
    return TokenCreated(
        token.name,
        by,
        tuple(sorted(token.scopes)),
        quotas.sandboxes,
        None if cpu is None else milliseconds(cpu),
        None if run is None else milliseconds(run * 60),
        None if lifetime is None else milliseconds(lifetime),
    )


def _made(request: pb.NewToken, secret: str, now: float) -> StoredToken:
    """What is kept of a new token.

    Raises:
        ConfigError: something in the request cannot be.
    """
    if not _NAME.fullmatch(request.name) or request.name == LOCAL.name:
        shown = one_line(request.name, 80)
        raise ConfigError(
            f"{shown!r} is no name for a token: letters, digits, '.', '_' and '-', at most 64, and not {LOCAL.name!r}"
        )
    scopes = frozenset(request.scopes)
    if not scopes or not scopes <= SCOPES:
        shown = one_line(", ".join(sorted(scopes)), 80)
        raise ConfigError(f"the scopes are {shown or 'none'}; there are {', '.join(sorted(SCOPES))}")
    return StoredToken(request.name, hash_of(secret), scopes, _quotas(request), now)


def _quotas(request: pb.NewToken) -> dict[str, float]:
    given = {descriptor.name: value for descriptor, value in request.quotas.ListFields()}
    stored = Quotas(**given).stored()
    if request.HasField("expires_after_seconds"):
        seconds = request.expires_after_seconds
        if not 0 < seconds <= MAX_LIFETIME or math.isnan(seconds):
            raise ConfigError(f"a token that expires after {seconds:g} seconds is of no use")
        stored[LIFETIME] = seconds
    return stored
