"""The rules of [[policy]]: which counts, and what an approver that goes by them answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.configured import Ask, Asked, Decision, PolicyRule, approver, decide
from orchestrator.policy import Approve, ExecutionRequest, Request, ToolCallRequest, Verdict
from orchestrator.sandbox.approval import Approver

RUN = ExecutionRequest("1 + 1", 30.0)
DEADLINE = 30.0  # seconds for one answer


def call(tool: str) -> ToolCallRequest:
    return ToolCallRequest(tool, {"to": "x"}, 1)


def answered(approve: Approve | None, request: Request) -> Verdict:
    """As a sandbox is answered."""

    async def main() -> Verdict:
        async with asyncio.timeout(DEADLINE):
            return await Approver(approve, DEADLINE).ask(request)

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("agent", "request_", "action", "rule"),
    [
        ("clerk", call("send_mail"), "ask", "policy[0]"),
        ("boss", call("send_mail"), "ask", "policy[0]"),
        ("", call("send_mail"), "ask", "policy[0]"),
        ("clerk", call("read_mail"), "refuse", "policy[2]"),
        ("boss", call("read_mail"), "allow", ""),
        ("boss", call("SEND_MAIL"), "allow", ""),
        ("boss", call("send_mail2"), "allow", ""),
        ("boss", call("*"), "allow", ""),
        ("clerk", RUN, "refuse", "policy[1]"),
        ("", RUN, "allow", ""),
        ("Clerk", RUN, "allow", ""),
    ],
)
def test_the_first_rule_that_matches_counts_and_without_one_it_is_allowed(
    agent: str, request_: Request, action: str, rule: str
) -> None:
    rules = [
        PolicyRule("ask", tool="send_mail"),
        PolicyRule("refuse", execution=True, agent="clerk"),
        PolicyRule("refuse", tool="*", agent="clerk"),
        PolicyRule("allow", execution=True, agent="clerk"),
    ]
    decision = decide(rules, agent, request_)
    assert (decision.action, decision.rule) == (action, rule)


def test_a_decision_has_the_reason_of_its_rule() -> None:
    rules = [PolicyRule("refuse", tool="a"), PolicyRule("ask", tool="*", reason="because")]
    assert decide(rules, "x", call("b")) == Decision("ask", "because", "policy[1]")


@pytest.mark.parametrize(
    "rules",
    [
        [],
        [PolicyRule("allow", tool="*"), PolicyRule("allow", execution=True)],
        [PolicyRule("refuse", tool="*", agent="other")],
    ],
)
def test_nobody_is_asked_where_the_rules_allow_everything(rules: Sequence[PolicyRule]) -> None:
    assert approver(rules, "me", lambda question: False) is None


def refusal(reason: str) -> Verdict:
    return Verdict(False, f"not approved: {reason}", "approver")


YES = Verdict(True, rule="approver")


def test_an_approver_goes_by_the_rules() -> None:
    rules = [
        PolicyRule("refuse", tool="a", reason="never"),
        PolicyRule("refuse", tool="b"),
        PolicyRule("ask", tool="c", reason="with care"),
        PolicyRule("ask", execution=True),
    ]
    asked: list[Asked] = []

    def ask(question: Asked) -> bool:
        asked.append(question)
        return question.request is RUN

    given = approver(rules, "me", ask)
    assert answered(given, call("a")) == refusal("never")
    assert answered(given, call("b")) == refusal("the settings refuse it (policy[1])")
    assert answered(given, call("d")) == YES
    assert asked == []
    assert answered(given, RUN) == YES
    assert answered(given, call("c")) == Verdict(False, "not approved", "approver")
    assert asked == [Asked("me", RUN, "", "policy[3]"), Asked("me", call("c"), "with care", "policy[2]")]


def test_without_anybody_to_ask_it_is_refused() -> None:
    given = approver([PolicyRule("ask", execution=True)], "me")
    assert answered(given, RUN) == refusal("policy[0] says that somebody is to be asked, and there is nobody")


async def _awaited(question: Asked) -> Any:
    await asyncio.sleep(0)
    return Verdict(False, "asked in vain")


@pytest.mark.parametrize(
    ("ask", "reason"),
    [(_awaited, "asked in vain"), (lambda question: _awaited(question), "asked in vain")],
    ids=["async", "gives an awaitable"],
)
def test_whoever_is_asked_may_have_to_be_awaited(ask: Ask, reason: str) -> None:
    assert answered(approver([PolicyRule("ask", execution=True)], "me", ask), RUN) == refusal(reason)


def test_an_approver_that_blocks_does_not_block_the_event_loop() -> None:
    """It waits for what the event loop does while it is asked."""
    going = threading.Event()

    async def main() -> Verdict:
        given = Approver(approver([PolicyRule("ask", execution=True)], "me", lambda _: going.wait(DEADLINE)), DEADLINE)
        asking = asyncio.create_task(given.ask(RUN))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(going.set)
        return await asking

    assert asyncio.run(main()) == YES


def test_an_approver_that_fails_has_not_said_yes() -> None:
    def ask(question: Asked) -> bool:
        raise OSError("canary")

    verdict = answered(approver([PolicyRule("ask", execution=True)], "me", ask), RUN)
    assert (verdict.allowed, verdict.rule) == (False, "approval_failed")
    assert "canary" not in verdict.reason
