"""Who may call the service, and what the others are told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from orchestrator_api.v1 import orchestrator_pb2 as pb
from orchestrator_api.v1 import orchestrator_pb2_grpc as rpc

from orchestrator.errors import AccessDenied, Overloaded
from orchestrator.service.access import LIFETIME, LOCAL, Access, Caller, caller
from orchestrator.service.attempts import AT_ONCE, MAX_ADDRESSES, SECONDS_EACH, Attempts, address_of
from orchestrator.service.scopes import NEEDS, SCOPES
from tests.unit.service_parts import DEADLINE, MemoryTokens, bearer, run, serving

GOOD, RUNS_ONLY, ADMIN, OLD, GONE = (f"cbk_{letter * 43}" for letter in "grael")
NOW = 1_000_000.0


def tokens() -> MemoryTokens:
    made = MemoryTokens()
    made.put(GOOD, "app", "sandboxes")
    made.put(RUNS_ONLY, "runner", "runs")
    made.put(ADMIN, "boss", "admin")
    made.put(OLD, "old", "sandboxes", quotas={LIFETIME: NOW})
    made.put(GONE, "gone", "sandboxes", revoked=5.0)
    return made


def access(kept: MemoryTokens | None = None, **options: Any) -> Access:
    return Access(kept or tokens(), clock=lambda: NOW, **options)


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def words(error: grpc.aio.AioRpcError) -> tuple[Any, ...]:
    """Everything that the caller is told."""
    return error.code(), error.details(), tuple(error.trailing_metadata() or ())


# -------------------------------------------------------------------------------------------------------- the table


def test_every_method_of_the_services_is_in_the_table_and_nothing_else_of_ours() -> None:
    methods = {
        f"/{service.full_name}/{method.name}"
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert {path for path in NEEDS if path.startswith("/orchestrator_api.")} == methods


def test_every_method_needs_a_scope_that_there_is() -> None:
    assert all(scopes and scopes <= SCOPES for scopes in NEEDS.values())


def test_only_admins_make_tokens() -> None:
    assert {path for path, scopes in NEEDS.items() if scopes == {"admin"}} == {
        f"/orchestrator_api.v1.Service/{name}" for name in ("ConsoleLink", "CreateToken", "ListTokens", "RevokeToken")
    }


# ------------------------------------------------------------------------------------------------------ who may call


def test_the_user_of_the_socket_may_do_everything_without_a_token(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path, access()) as served, served.local() as channel:
            stub = rpc.SandboxesStub(channel)
            assert (await stub.Get(pb.SandboxId(id="a"))).owner == "local"
            assert [event.json async for event in stub.Execute(pb.Execution())] == [b"local"] * 3

    run(test())


def test_over_the_socket_a_token_allows_what_it_allows_and_no_more(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path, access()) as served, served.local() as channel:
            stub = rpc.SandboxesStub(channel)
            assert (await stub.Get(pb.SandboxId(id="a"), metadata=bearer(GOOD))).owner == "app"
            for wrong in (bearer("cbk_" + "w" * 43), bearer(""), (("authorization", "x"),), bearer(GOOD) * 2):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.Get(pb.SandboxId(id="a"), metadata=wrong)
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED

    run(test())


def test_all_four_kinds_of_methods_know_the_token_that_calls(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path, access()) as served, served.remote() as channel:
            stub, key = rpc.SandboxesStub(channel), bearer(GOOD)
            assert (await stub.Get(pb.SandboxId(id="a"), metadata=key)) == pb.Sandbox(id="a", owner="app")
            assert [event.json async for event in stub.Execute(pb.Execution(), metadata=key)] == [b"app"] * 3
            assert await stub.WriteFile(iter([pb.FilePiece(data=b"app")] * 2), metadata=key) == pb.Done()
            serve = rpc.ToolsStub(channel).Serve(iter([pb.FromApp()] * 2), metadata=key)
            assert [message async for message in serve] == [pb.ToApp(opened=pb.Opened())] * 2

    run(test())


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param((), id="none"),
        pytest.param(bearer(f"cbk_{'x' * 43}"), id="unknown"),
        pytest.param(bearer(OLD), id="expired"),
        pytest.param(bearer(GONE), id="revoked"),
        pytest.param(bearer(GOOD[:-1]), id="too short"),
        pytest.param(bearer(GOOD + "a"), id="too long"),
        pytest.param((*bearer(GOOD), *bearer(GOOD)), id="two"),
        pytest.param((("authorization", f"Basic {GOOD}"),), id="another scheme"),
        pytest.param((("authorization-bin", GOOD.encode()),), id="elsewhere"),
    ],
)
def test_whoever_has_no_valid_token_is_told_the_same_whatever_is_wrong_with_it(
    tmp_path: Path, metadata: tuple[tuple[str, Any], ...]
) -> None:
    async def test() -> None:
        async with serving(tmp_path, access()) as served, served.remote() as channel:
            stub = rpc.SandboxesStub(channel)
            for call in (
                stub.Get(pb.SandboxId(), metadata=metadata),
                anext(aiter(stub.Execute(pb.Execution(), metadata=metadata))),
                stub.WriteFile(iter([pb.FilePiece()]), metadata=metadata),
            ):
                code, details, trailing = words(await refused(call))
                assert code is grpc.StatusCode.UNAUTHENTICATED
                assert details.startswith("there is no valid token with this call")
                assert trailing == (("cellblock-error", "AccessDenied"),)

    run(test())


def test_a_token_does_what_its_scopes_say_and_no_more(tmp_path: Path) -> None:
    async def test() -> None:
        denials: list[str] = []
        async with serving(tmp_path, access(on_denied=denials.append)) as served, served.remote() as channel:
            for token, call, request in (
                (RUNS_ONLY, rpc.SandboxesStub(channel).Create, pb.CreateSandbox()),
                (ADMIN, rpc.SandboxesStub(channel).Get, pb.SandboxId()),
                (GOOD, rpc.RunsStub(channel).Get, pb.RunId()),
                (GOOD, rpc.ServiceStub(channel).CreateToken, pb.NewToken()),
            ):
                error = await refused(call(request, metadata=bearer(token)))
                assert error.code() is grpc.StatusCode.PERMISSION_DENIED
                assert dict(error.trailing_metadata() or ()) == {"cellblock-error": "AccessDenied"}
            assert denials == ["scope"] * 4
            error = await refused(rpc.RunsStub(channel).Get(pb.RunId(), metadata=bearer(RUNS_ONLY)))
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED  # it got through

    run(test())


def test_a_method_that_is_not_in_the_table_is_nobodys(tmp_path: Path) -> None:
    class Answering(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> Any:
            async def answer(request: bytes, context: Any) -> bytes:
                return b"secret"

            return grpc.unary_unary_rpc_method_handler(answer) if details.method == "/new/Method" else None

    async def test() -> None:
        add = [lambda server: server.add_generic_rpc_handlers((Answering(),))]
        async with serving(tmp_path, access(), more=add) as served, served.local() as channel:
            assert (await refused(channel.unary_unary("/new/Method")(b""))).code() is (
                grpc.StatusCode.PERMISSION_DENIED
            )
            assert (await refused(channel.unary_unary("/no/Method")(b""))).code() is grpc.StatusCode.UNIMPLEMENTED

    run(test())


def test_a_request_is_not_parsed_before_its_caller_is_known(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path, access()) as served, served.remote() as channel:
            call = channel.unary_unary("/orchestrator_api.v1.Sandboxes/Get")
            assert (await refused(call(b"\xff\xff"))).code() is grpc.StatusCode.UNAUTHENTICATED
            error = await refused(call(b"\xff\xff", metadata=bearer(GOOD)))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT

    run(test())


def test_a_listener_without_tls_takes_no_token(tmp_path: Path) -> None:
    async def test() -> None:
        server = grpc.aio.server(interceptors=(access(),))
        rpc.add_SandboxesServicer_to_server(rpc.SandboxesServicer(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            error = await refused(rpc.SandboxesStub(channel).Get(pb.SandboxId(), metadata=bearer(GOOD)))
        await server.stop(0)
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED

    run(test())


# --------------------------------------------------------------------------------------------------------- revoking


def test_a_stream_ends_when_its_token_is_revoked(tmp_path: Path) -> None:
    async def test() -> None:
        kept = tokens()
        kept.put(f"cbk_{'o' * 43}", "other", "sandboxes")
        guard = access(kept)
        async with serving(tmp_path, guard) as served, served.remote() as channel:
            stub, endless = rpc.SandboxesStub(channel), pb.Execution(key="endless")
            stream = aiter(stub.Execute(endless, metadata=bearer(GOOD)))
            other = aiter(stub.Execute(endless, metadata=bearer(f"cbk_{'o' * 43}")))
            for _ in range(3):
                await anext(stream)
                await anext(other)
            await kept.revoke("app")
            guard.revoked("app")
            guard.revoked("app")  # told twice
            assert (await refused(anext(stream))).code() is grpc.StatusCode.UNAUTHENTICATED
            async with asyncio.timeout(DEADLINE):
                await served.sandboxes.closed.wait()
            assert (await refused(stub.Get(pb.SandboxId(), metadata=bearer(GOOD)))).code() is (
                grpc.StatusCode.UNAUTHENTICATED
            )
            waiting = asyncio.create_task(anext(other))
            assert (await stub.Get(pb.SandboxId(), metadata=bearer(f"cbk_{'o' * 43}"))).owner == "other"
            assert not waiting.done()
            waiting.cancel()

    run(test())


def test_a_stream_ends_when_its_token_expires(tmp_path: Path) -> None:
    async def test() -> None:
        kept = tokens()
        kept.put(GOOD, "app", "sandboxes", quotas={LIFETIME: NOW + 2})
        async with serving(tmp_path, access(kept)) as served, served.remote() as channel:
            stub = rpc.SandboxesStub(channel)
            stream = aiter(stub.Execute(pb.Execution(key="endless"), metadata=bearer(GOOD)))
            for _ in range(3):
                await anext(stream)
            assert (await refused(anext(stream))).code() is grpc.StatusCode.UNAUTHENTICATED

    run(test())


def test_a_token_that_was_revoked_while_it_was_looked_up_is_not_let_in(tmp_path: Path) -> None:
    class Slow(MemoryTokens):
        async def token_of(self, hash: str) -> Any:
            found = await super().token_of(hash)
            guard.revoked("app")
            return found

    slow = Slow(tokens().kept)
    guard = access(slow)

    async def test() -> None:
        async with serving(tmp_path, guard) as served, served.remote() as channel:
            stream = rpc.SandboxesStub(channel).Execute(pb.Execution(), metadata=bearer(GOOD))
            assert (await refused(anext(aiter(stream)))).code() is grpc.StatusCode.UNAUTHENTICATED

    run(test())


# --------------------------------------------------------------------------------------------------------- attempts


def test_who_fails_too_often_has_to_wait_and_who_was_let_in_before_has_not(tmp_path: Path) -> None:
    async def test() -> None:
        clock, denials = [0.0], list[str]()
        guard = access(attempts=Attempts(lambda: clock[0]), on_denied=denials.append)
        async with serving(tmp_path, guard) as served, served.remote() as channel:
            get = rpc.SandboxesStub(channel).Get
            await get(pb.SandboxId(), metadata=bearer(GOOD))
            for _ in range(AT_ONCE):
                await refused(get(pb.SandboxId(), metadata=bearer(f"cbk_{'x' * 43}")))
            for wrong in (bearer(f"cbk_{'x' * 43}"), (), bearer(ADMIN)):  # the last is good, but was never seen
                error = await refused(get(pb.SandboxId(), metadata=wrong))
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                told = dict(error.trailing_metadata() or ())
                assert told["cellblock-error"] == "Overloaded"
                assert 0 < int(told["retry-after-ms"]) <= SECONDS_EACH * 1000 + 1
            assert denials == ["bad_token"] * AT_ONCE + ["attempts"] * 3
            await get(pb.SandboxId(), metadata=bearer(GOOD))
            clock[0] = SECONDS_EACH
            assert (await refused(get(pb.SandboxId(), metadata=bearer(ADMIN)))).code() is (
                grpc.StatusCode.PERMISSION_DENIED
            )

    run(test())


def test_a_login_counts_the_same_attempts() -> None:
    async def test() -> None:
        denials: list[str] = []
        guard = access(on_denied=denials.append, attempts=Attempts(lambda: 0.0))
        assert (await guard.caller_of(GOOD, "192.0.2.7")).name == "app"
        for token in (GOOD + "\n", "", "é" * 47, OLD, f"cbk_{'x' * 43}")[: AT_ONCE // 2] * 2:
            with pytest.raises(AccessDenied, match="there is no valid token"):
                await guard.caller_of(token, "192.0.2.7")
        with pytest.raises(Overloaded) as caught:
            await guard.caller_of(ADMIN, "192.0.2.7")
        assert caught.value.retry_after == SECONDS_EACH
        assert (await guard.caller_of(ADMIN, "192.0.2.8")).sees_all
        assert (await guard.caller_of(GOOD, "192.0.2.7")).name == "app"
        assert denials == (["no_token"] * 3 + ["bad_token"] * 2) * 2 + ["attempts"]

    run(test())


def test_good_tokens_use_up_no_attempts() -> None:
    attempts = Attempts(lambda: 0.0)
    for _ in range(AT_ONCE * 3):
        assert attempts.take("a") == 0
        attempts.give_back("a")
    assert [attempts.take("a") for _ in range(AT_ONCE + 1)] == [0.0] * AT_ONCE + [SECONDS_EACH]
    assert attempts.take("b") == 0


def test_addresses_are_forgotten_so_that_they_do_not_fill_the_memory() -> None:
    attempts = Attempts(lambda: 0.0)
    for number in range(MAX_ADDRESSES * 2):
        attempts.take(str(number))
    assert len(attempts._full_at) == MAX_ADDRESSES


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.7:4711", "192.0.2.7"),
        ("ipv6:%5B2001:db8:1:2:3::4%5D:4711", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2::9]:4711", "2001:db8:1:2::/64"),
        ("ipv6:%5B::ffff:192.0.2.7%5D:4711", "192.0.2.7"),
        ("ipv6:[fe80::1%25eth0]:1", "fe80::/64"),
        ("unknown:whatever", "unknown"),
    ],
)
def test_attempts_are_counted_by_address_and_not_by_port(peer: str, address: str) -> None:
    assert address_of(peer) == address


# ----------------------------------------------------------------------------------------------------------- callers


def test_a_caller_sees_its_own_and_with_admin_everything() -> None:
    app, boss = Caller("app", frozenset({"sandboxes"})), Caller("boss", frozenset({"admin"}))
    assert (app.sees_all, boss.sees_all) == (False, True)
    assert (app.sees("app"), app.sees("boss"), boss.sees("app"), LOCAL.sees("app")) == (True, False, True, True)
    app.require("sandboxes")
    with pytest.raises(AccessDenied, match="'runs'"):
        app.require("runs")


def test_outside_of_a_call_nobody_is_the_caller() -> None:
    with pytest.raises(AccessDenied):
        caller()
