"""Tokens: made once, stored as hashes, listed, revoked; by the API and by ``cellblock token``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from orchestrator_api.v1 import orchestrator_pb2 as pb
from orchestrator_api.v1 import orchestrator_pb2_grpc as rpc

from orchestrator.cli import main
from orchestrator.errors import CellblockError, NotFound
from orchestrator.service.access import LIFETIME, Access, expires, hash_of
from orchestrator.service.failures import Failures
from orchestrator.service.quotas import Accounts
from orchestrator.service.scopes import SCOPES
from orchestrator.service.tokens import TokenMethods, new_secret
from orchestrator.store import Store, StoredToken
from tests.unit.service_parts import MemoryTokens, MemoryUsages, Served, bearer, run, serving


@asynccontextmanager
async def service(folder: Path, kept: Any = None) -> AsyncIterator[tuple[Served, Any, Accounts]]:
    """A server with the methods, and the socket's stub of them."""
    kept = MemoryTokens() if kept is None else kept
    accounts = Accounts(MemoryUsages([time.time()]))
    access = Access(kept)
    methods = TokenMethods(kept, access, accounts)
    async with serving(folder, access, Failures(), Service=methods) as served, served.local() as channel:
        yield served, rpc.ServiceStub(channel), accounts


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


# ------------------------------------------------------------------------------------------------------------ methods


def test_a_token_that_was_made_calls_and_one_that_was_revoked_does_not(tmp_path: Path) -> None:
    async def test() -> None:
        async with service(tmp_path) as (served, admin, _), served.remote() as channel:
            made = await admin.CreateToken(pb.NewToken(name="app", scopes=["sandboxes"]))
            get = rpc.SandboxesStub(channel).Get
            assert (await get(pb.SandboxId(), metadata=bearer(made.token))).owner == "app"
            await admin.RevokeToken(pb.TokenName(name="app"))
            await admin.RevokeToken(pb.TokenName(name="app"))  # again is the same
            error = await refused(get(pb.SandboxId(), metadata=bearer(made.token)))
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED

    run(test())


def test_the_secret_is_shown_once_and_kept_nowhere(tmp_path: Path) -> None:
    async def test() -> None:
        kept = MemoryTokens()
        async with service(tmp_path, kept) as (_, admin, _):
            made = await admin.CreateToken(pb.NewToken(name="app", scopes=["runs"]))
            assert kept.kept["app"].hash == hash_of(made.token)
            listed = await admin.ListTokens(pb.ListTokensRequest())
            assert list(listed.tokens) == [made.info]
            for text in (repr(kept), str(listed)):
                assert made.token not in text
                assert made.token.removeprefix("cbk_") not in text
            assert kept.kept["app"].hash not in str(listed)

    run(test())


def test_what_a_token_may_use_and_has_used_is_listed(tmp_path: Path) -> None:
    async def test() -> None:
        async with service(tmp_path) as (_, admin, accounts):
            quotas = pb.TokenQuotas(sandboxes=5, cpu_seconds=3600, run_minutes=0)
            order = pb.NewToken(name="a", scopes=["runs", "sandboxes"], quotas=quotas, expires_after_seconds=60)
            made = await admin.CreateToken(order)
            assert made.info.quotas == quotas
            assert made.info.expires == made.info.created + 60
            await admin.CreateToken(pb.NewToken(name="b", scopes=["admin"]))
            await accounts.add_cpu("a", 7.5)
            first, second = (await admin.ListTokens(pb.ListTokensRequest())).tokens
            assert (first.name, list(first.scopes), first.cpu_seconds_today) == ("a", ["runs", "sandboxes"], 7.5)
            assert (second.quotas, second.expires, second.revoked) == (pb.TokenQuotas(), 0, 0)
            assert abs(second.created - time.time()) < 60

    run(test())


def test_a_name_is_given_once_though_its_token_was_revoked(tmp_path: Path) -> None:
    async def test() -> None:
        async with service(tmp_path) as (_, admin, _):
            order = pb.NewToken(name="app", scopes=["runs"])
            await admin.CreateToken(order)
            await admin.RevokeToken(pb.TokenName(name="app"))
            assert "there is or was a token named 'app'" in str((await refused(admin.CreateToken(order))).details())
            assert "no token 'other'" in str((await refused(admin.RevokeToken(pb.TokenName(name="other")))).details())

    run(test())


@pytest.mark.parametrize(
    ("order", "told"),
    [
        (pb.NewToken(name="", scopes=["runs"]), "no name for a token"),
        (pb.NewToken(name="local", scopes=["runs"]), "not 'local'"),
        (pb.NewToken(name="a b", scopes=["runs"]), "no name for a token"),
        (pb.NewToken(name="a\n", scopes=["runs"]), "no name for a token"),
        (pb.NewToken(name="é", scopes=["runs"]), "no name for a token"),
        (pb.NewToken(name="a" * 65, scopes=["runs"]), "no name for a token"),
        (pb.NewToken(name="a"), "the scopes are none"),
        (pb.NewToken(name="a", scopes=["runs", "root\x1b[2J"]), "the scopes are root, runs; there are admin, runs"),
        (pb.NewToken(name="a", scopes=["runs"], quotas=pb.TokenQuotas(cpu_seconds=-1)), "cpu_seconds is -1"),
        (pb.NewToken(name="a", scopes=["runs"], quotas=pb.TokenQuotas(run_minutes=float("nan"))), "run_minutes is nan"),
        (pb.NewToken(name="a", scopes=["runs"], expires_after_seconds=0), "expires after 0 seconds"),
        (pb.NewToken(name="a", scopes=["runs"], expires_after_seconds=float("inf")), "expires after inf seconds"),
        (pb.NewToken(name="a", scopes=["runs"], expires_after_seconds=float("nan")), "expires after nan seconds"),
    ],
)
def test_what_cannot_be_a_token_is_not_made(tmp_path: Path, order: pb.NewToken, told: str) -> None:
    async def test() -> None:
        kept = MemoryTokens()
        async with service(tmp_path, kept) as (_, admin, _):
            error = await refused(admin.CreateToken(order))
            assert dict(error.trailing_metadata() or ()) == {"cellblock-error": "ConfigError"}
            assert told in str(error.details())
            assert kept.kept == {}

    run(test())


def test_without_the_scope_admin_tokens_are_neither_made_nor_listed_nor_revoked(tmp_path: Path) -> None:
    async def test() -> None:
        async with service(tmp_path) as (served, admin, _), served.remote() as channel:
            app = await admin.CreateToken(pb.NewToken(name="app", scopes=sorted(SCOPES - {"admin"})))
            boss = await admin.CreateToken(pb.NewToken(name="boss", scopes=["admin"]))
            stub = rpc.ServiceStub(channel)
            for call, request in (
                (stub.CreateToken, pb.NewToken(name="more", scopes=["admin"])),
                (stub.ListTokens, pb.ListTokensRequest()),
                (stub.RevokeToken, pb.TokenName(name="boss")),
            ):
                error = await refused(call(request, metadata=bearer(app.token)))
                assert error.code() is grpc.StatusCode.PERMISSION_DENIED
            listed = await stub.ListTokens(pb.ListTokensRequest(), metadata=bearer(boss.token))
            assert [token.name for token in listed.tokens] == ["app", "boss"]

    run(test())


def test_no_two_secrets_are_the_same() -> None:
    assert len({new_secret() for _ in range(1000)}) == 1000


# ----------------------------------------------------------------------------------------------- the store's contract


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[Any]:
    if kind == "memory":
        yield MemoryTokens()
        return
    store = await Store.open(folder / "store.db")
    try:
        yield store
    finally:
        await store.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_every_store_of_tokens_does_the_same(kind: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(kind, tmp_path) as store:
            token = StoredToken(
                "app", hash_of("x"), frozenset({"runs", "admin"}), {"sandboxes": 5.0, LIFETIME: 9.0}, 100.0
            )
            assert await store.token_of(token.hash) is None
            await store.add_token(token)
            found = await store.token_of(token.hash)
            for name in StoredToken.__slots__:
                assert getattr(found, name) == getattr(token, name)
            assert expires(found) == 109.0
            with pytest.raises(CellblockError, match="there is or was a token named 'app'"):
                await store.add_token(StoredToken("app", hash_of("y"), frozenset({"runs"})))
            assert await store.token_of(hash_of("y")) is None
            await store.revoke("app")
            await store.revoke("app")
            assert await store.token_of(token.hash) is None
            (listed,) = await store.tokens()
            assert abs(listed.revoked - time.time()) < 60
            with pytest.raises(NotFound):
                await store.revoke("other")

    run(test())


# --------------------------------------------------------------------------------------------------- the command line


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CELLBLOCK_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def test_the_commands_make_list_and_revoke(runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = MemoryTokens()

    async def cellblock(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main, ["token", *arguments])
        return code, *capsys.readouterr()

    async def test() -> None:
        async with service(runtime, kept) as (served, _, _), served.remote() as channel:
            limits = ["--sandboxes", "5", "--cpu-seconds", "3600", "--run-minutes", "60", "--expires-days", "30"]
            code, out, err = await cellblock("create", "app", "--scope", "sandboxes,runs", *limits)
            assert (code, err) == (0, "")
            assert (await rpc.SandboxesStub(channel).Get(pb.SandboxId(), metadata=bearer(out.strip()))).owner == "app"
            assert kept.kept["app"].scopes == {"sandboxes", "runs"}
            assert dict(kept.kept["app"].quotas) == {
                "sandboxes": 5, "cpu_seconds": 3600, "run_minutes": 60, LIFETIME: 30 * 86400,
            }  # fmt: skip
            code, listed, _ = await cellblock("list")
            assert code == 0
            assert all(
                word in listed for word in ("app", "runs, sandboxes", "at most 5", "0 of 3600", "0 of 60", "until")
            )
            assert out.strip() not in listed
            assert await cellblock("revoke", "app") == (0, "revoked app\n", "")
            assert "revoked 2" in (await cellblock("list"))[1]
            code, _, err = await cellblock("revoke", "none")
            assert (code, err) == (3, "cellblock: NotFound: there is no token 'none'\n")
            assert (await cellblock("create", "b", "--scope", "root"))[0] == 2
            assert (await cellblock("create", "b", "--sandboxes", "-1"))[0] == 2
            assert (await cellblock("create", "plain"))[0] == 0
            assert (kept.kept["plain"].scopes, dict(kept.kept["plain"].quotas)) == ({"sandboxes", "runs"}, {})

    run(test())


def test_without_a_service_the_commands_say_so(runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "list"]) == 3
    assert "ServiceUnavailable: no service runs here" in capsys.readouterr().err


def test_a_socket_that_nobody_listens_at_is_told(runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def test() -> None:
        async with service(runtime):
            pass

    run(test())
    assert main(["token", "revoke", "a"]) == 3
    assert "ServiceUnavailable" in capsys.readouterr().err
