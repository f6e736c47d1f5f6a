"""What the rules of ``[[policy]]`` say about a request, and an approver that goes by them. No I/O."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.configured.tables import PolicyRule
from orchestrator.policy import Answer, Approve, ExecutionRequest, Request, ToolCallRequest, Verdict


@dataclass(frozen=True, slots=True)
class Decision:
    """``rule``: which one, such as ``policy[2]``; empty if none matches. ``reason``: the rule's own, perhaps empty."""

    action: Literal["allow", "ask", "refuse"]
    reason: str = ""
    rule: str = ""


def decide(rules: Sequence[PolicyRule], agent: str, request: Request) -> Decision:
    """What the first rule that matches says; what is granted is allowed if there is none.

    ``agent``: whose code or model asks; empty for a sandbox of an app's own.
    """
    for number, rule in enumerate(rules):
        if rule.agent in ("", agent) and _matches(rule, request):
            return Decision(rule.action, rule.reason, f"policy[{number}]")
    return Decision("allow")


def _matches(rule: PolicyRule, request: Request) -> bool:
    match request:
        case ExecutionRequest():
            return rule.execution
        case ToolCallRequest(tool):
            return rule.tool in ("*", tool)


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody is asked about, because a rule says so.

    Attributes:
        agent: whose code or model wants it, in a team the member; empty for a sandbox of an app's own.
        request: what it wants.
        reason: the rule's, perhaps empty.
        rule: which one, such as ``policy[2]``.
    """

    agent: str
    request: Request
    reason: str = ""
    rule: str = ""


Ask = Callable[[Asked], Answer | Awaitable[Answer]]
"""Answers a question, as an ``Approve`` does a request."""


def approver(
    rules: Sequence[PolicyRule], agent: str, ask: Ask | None = None, otherwise: Approve | None = None
) -> Approve | None:
    """Who answers the requests of ``agent``: the rules, and ``ask`` where they say that somebody is to be asked.

    None if there is nothing that they would not allow. Without an ``ask``, what it would be asked is refused. An
    ``otherwise`` is asked about what the rules allow.
    """
    own = [rule for rule in rules if rule.agent in ("", agent)]
    if all(rule.action == "allow" for rule in own):
        return otherwise

    def answer(request: Request) -> Answer | Awaitable[Answer]:  # not async: an `ask` that blocks gets a thread
        decision = decide(rules, agent, request)
        match decision.action:
            case "allow":
                return True if otherwise is None else otherwise(request)
            case "refuse":
                return Verdict(False, decision.reason or f"the settings refuse it ({decision.rule})")
        if ask is None:
            return Verdict(False, f"{decision.rule} says that somebody is to be asked, and there is nobody")
        return ask(Asked(agent, request, decision.reason, decision.rule))

    return answer
