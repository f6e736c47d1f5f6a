"""What of a long conversation the model is still shown. The memory itself keeps everything.

Between two compactions the conversation only grows at its end, so that prompt caches hit. Each compaction makes room
for many steps: one at every step would change the beginning of every request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.agents.callbacks import call
from orchestrator.agents.memory import AgentMemory, merged
from orchestrator.agents.run import Compacted
from orchestrator.agents.steps import ActionStep, CallResult, KeptStep, NoteStep, PlanningStep, StepError, TaskStep
from orchestrator.agents.tokens import TokenMeter
from orchestrator.errors import AgentError
from orchestrator.models import ChatMessage, ModelReply, TokenUsage
from orchestrator.sanitise import one_line

# Most models of today read 128,000 tokens or more; the rest is for the reply and for what the estimate is wrong by.
DEFAULT_MAX_TOKENS = 100_000
DEFAULT_FREED = 0.5  # of the budget: a compaction costs one prompt that no cache has, so it should last for long
DEFAULT_KEEP_LAST = 4  # steps whose output stays whole: what the model works with right now
MIN_TOKENS = 1_000  # a smaller budget has no room for a system prompt
MAX_LINE = 200  # characters that stay of a shortened text
MAX_SUMMARY = 20_000  # characters of a model's summary

_ASK_FOR_SUMMARY = (
    "The conversation has become too long. Write a summary that will stand in the place of everything after the task: "
    "what was done and found out, with the exact values that still matter; the names of variables, functions and files "
    "that exist, and what they hold; what was tried in vain; what is left to do. Write no code to be run."
)


def _messages_of(step: KeptStep) -> Iterable[ChatMessage]:
    return step.to_messages()


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a compaction is given.

    Attributes:
        steps: what the model is shown after the system prompt, after earlier compactions; oldest first.
        beginning: the messages before them: the system prompt.
        meter: estimates tokens.
        ask: asks the agent's model, and gives its words.
        messages_of: the messages of a step.
    """

    steps: tuple[KeptStep, ...]
    beginning: tuple[ChatMessage, ...]
    meter: TokenMeter
    ask: Callable[[Sequence[ChatMessage]], Awaitable[str]]
    messages_of: Callable[[KeptStep], Iterable[ChatMessage]] = _messages_of

    def tokens(self) -> int:
        """About how many the next request takes."""
        return self.meter.estimate(self.beginning) + sum(map(self.tokens_of, self.steps))

    def tokens_of(self, step: KeptStep) -> int:
        """About how many of them are those of ``step``."""
        return self.meter.estimate(self.messages_of(step))


Compaction = Callable[[Conversation], Sequence[KeptStep] | Awaitable[Sequence[KeptStep] | None] | None]
"""Called before each request, sync (in a worker thread) or async. It gives the steps that the model is shown from now
on in the place of ``conversation.steps``, or None to leave them as they are."""


@dataclass(frozen=True, slots=True)
class ShortenOldest:
    """Shortens the oldest observations to a line each, once the conversation is over ``max_tokens``.

    What the model said, its code, tasks, plans and what the host said stay, and so do the newest steps. Only where that
    is not enough, the oldest steps and plans are left out whole, and the model is told how many.

    Args:
        max_tokens: the budget of one request, in tokens, as far as they can be estimated.
        freed: the part of it that is free again after a compaction.
        keep_last: so many of the newest steps stay whole.

    Raises:
        AgentError: an argument is out of range.
    """

    max_tokens: int = DEFAULT_MAX_TOKENS
    freed: float = DEFAULT_FREED
    keep_last: int = DEFAULT_KEEP_LAST

    def __post_init__(self) -> None:
        _check(self.max_tokens, self.freed)
        if self.keep_last < 1:
            raise AgentError(f"keep_last is {self.keep_last}; the newest step at least has to stay whole")

    def __call__(self, conversation: Conversation) -> Sequence[KeptStep] | None:
        """The steps to show; None within the budget, or if nothing can be shortened."""
        if conversation.tokens() <= self.max_tokens:
            return None
        shortening = _Shortening(conversation, int(self.max_tokens * (1 - self.freed)), self.keep_last)
        shortening.shorten()
        shortening.leave_out()
        return shortening.result()


@dataclass(frozen=True, slots=True)
class SummariseOldest:
    """Has the model summarise the older half of the conversation, once that is over ``max_tokens``.

    The summary stands in the place of these steps; tasks stay as they are. It costs one call of the model, which the
    run's token usage counts; its prompt begins like the request before, so that a cache has most of it. Where a summary
    frees too little, observations are shortened, too.

    Args:
        max_tokens: the budget of one request, in tokens, as far as they can be estimated.
        freed: the part of it that is free again after a compaction, but for the length of the summary.

    Raises:
        AgentError: an argument is out of range.
    """

    max_tokens: int = DEFAULT_MAX_TOKENS
    freed: float = DEFAULT_FREED

    def __post_init__(self) -> None:
        _check(self.max_tokens, self.freed)

    async def __call__(self, conversation: Conversation) -> Sequence[KeptStep] | None:
        """The steps to show; None within the budget."""
        if conversation.tokens() <= self.max_tokens:
            return None
        older, newer = _divided(conversation, int(self.max_tokens * (1 - self.freed)))
        if not any(isinstance(step, ActionStep) for step in older):  # nothing new since the last summary
            return ShortenOldest(self.max_tokens, self.freed, keep_last=1)(conversation)
        history = [message for step in older for message in conversation.messages_of(step)]
        asked = merged([*conversation.beginning, *history, ChatMessage("user", _ASK_FOR_SUMMARY)])
        summary = (await conversation.ask(asked)).strip()[:MAX_SUMMARY]
        tasks = [step for step in older if isinstance(step, TaskStep)]
        shown = (*tasks, _note(_left_out(older), summary), *newer)
        again = replace(conversation, steps=shown)
        return ShortenOldest(self.max_tokens, self.freed, keep_last=1)(again) or shown


def _check(max_tokens: int, freed: float) -> None:
    if max_tokens < MIN_TOKENS:
        raise AgentError(f"max_tokens is {max_tokens}; it must be at least {MIN_TOKENS:,}")
    if not 0.1 <= freed <= 0.9:
        raise AgentError(f"freed is {freed}; it must be from 0.1 to 0.9 of the budget")


def checked_compaction(compaction: Compaction | None) -> Compaction | None:
    """The setting of that name.

    Raises:
        AgentError: it cannot be called.
    """
    if compaction is not None and not callable(compaction):
        raise AgentError(f"compaction: {compaction!r} cannot be called; give ShortenOldest(), or None for none")
    return compaction


@dataclass(slots=True)
class _Asker:
    """Asks the model for a compaction, and keeps what that took."""

    question: Callable[[Sequence[ChatMessage]], Awaitable[ModelReply]]
    usages: list[TokenUsage | None] = field(default_factory=list)

    async def __call__(self, messages: Sequence[ChatMessage]) -> str:
        reply = await self.question(messages)
        self.usages.append(reply.token_usage)
        return reply.text


async def make_room(
    compaction: Compaction,
    memory: AgentMemory,
    meter: TokenMeter,
    ask: Callable[[Sequence[ChatMessage]], Awaitable[ModelReply]],
) -> Compacted | None:
    """What happened, if ``compaction`` changed what the model is shown of ``memory``.

    Raises:
        AgentError: it gave something that is no steps.
    """
    asker = _Asker(ask)
    beginning = memory.messages_of(memory.system_prompt)
    before = Conversation(memory.shown_steps(), beginning, meter, asker, memory.messages_of)
    shown = _checked_steps(await call(compaction, before))
    if shown is None:
        return None
    memory.show(shown)
    return Compacted(before.tokens(), replace(before, steps=shown).tokens(), tuple(asker.usages))


def _checked_steps(given: Any) -> tuple[KeptStep, ...] | None:
    if given is None:
        return None
    shown = tuple(given)
    for step in shown:
        if not isinstance(step, KeptStep):
            raise AgentError(f"compaction gave {step!r}; it must give the steps that the model is shown, or None")
    return shown


class _Shortening:
    """Makes a conversation shorter, oldest first, until it has ``target`` tokens."""

    def __init__(self, conversation: Conversation, target: int, keep_last: int) -> None:
        self._conversation = conversation
        self._target = target
        self._shown: list[KeptStep | None] = list(conversation.steps)
        self._sizes = [conversation.tokens_of(step) for step in conversation.steps]
        self._total = conversation.tokens()
        actions = [place for place, step in enumerate(conversation.steps) if isinstance(step, ActionStep)]
        newest = actions[-keep_last:]
        self._end = newest[0] if newest else len(conversation.steps)  # what comes from there on stays
        self._left_out = 0

    def shorten(self) -> None:
        """Each observation to a line."""
        for place in range(self._end):
            step = self._shown[place]
            if self._total <= self._target:
                return
            if isinstance(step, ActionStep):
                self._put(place, shortened(step))

    def leave_out(self) -> None:
        """Whole steps: what the model did, outdated plans, earlier notes. Their number stays in a note."""
        place = 0
        for place in range(self._end):
            step = self._shown[place]
            if self._total <= self._target:
                break
            if isinstance(step, ActionStep | PlanningStep | NoteStep):
                self._left_out += _left_out([step])
                self._put(place, None)
        if self._left_out:
            last = max(place for place, step in enumerate(self._shown) if step is None)
            self._put(last, _note(self._left_out))

    def _put(self, place: int, step: KeptStep | None) -> None:
        size = self._conversation.tokens_of(step) if step else 0
        self._total += size - self._sizes[place]
        self._shown[place], self._sizes[place] = step, size

    def result(self) -> tuple[KeptStep, ...] | None:
        """The steps to show; None if they are the same."""
        shown = tuple(step for step in self._shown if step is not None)
        before = self._conversation.steps
        is_same = len(shown) == len(before) and all(a is b for a, b in zip(shown, before, strict=True))
        return None if is_same else shown


def shortened(step: ActionStep) -> ActionStep:
    """The step with a line of what came of it, without its pictures; the same one if that is no shorter."""
    error = step.error and StepError(step.error.kind, _last_line(step.error.message))
    calls = tuple(CallResult(c.call, _line(c.text), c.failed) for c in step.tool_calls)
    observations = step.observations and _line(step.observations)
    same = (observations, error, calls) == (step.observations, step.error, step.tool_calls)
    if same and not step.observations_images:
        return step
    return replace(step, observations=observations, error=error, tool_calls=calls, observations_images=())


def _line(text: str) -> str:
    if len(text) <= MAX_LINE:
        return text
    mark = f" [… shortened: it had {len(text):,} characters]"
    return f"{one_line(text[:MAX_LINE], MAX_LINE - len(mark))}{mark}"


def _last_line(message: str) -> str:
    """Of a traceback: the kind of exception and what it says."""
    if len(message) <= MAX_LINE:
        return message
    return _line(message.rstrip().rpartition("\n")[2])


def _divided(conversation: Conversation, target: int) -> tuple[Sequence[KeptStep], Sequence[KeptStep]]:
    """The older steps, and so many of the newest as ``target`` has room for; at least the newest stays."""
    steps = conversation.steps
    room = target - conversation.meter.estimate(conversation.beginning)
    start = len(steps) - 1
    while start > 0:
        room -= conversation.tokens_of(steps[start])
        if room < conversation.tokens_of(steps[start - 1]):
            break
        start -= 1
    return steps[:start], steps[start:]


def _left_out(steps: Sequence[KeptStep]) -> int:
    """How many of the model's steps they stand for."""
    return sum(step.left_out if isinstance(step, NoteStep) else isinstance(step, ActionStep) for step in steps)


def _note(left_out: int, summary: str = "") -> NoteStep:
    steps = f"{left_out} earlier step{'s are' if left_out != 1 else ' is'} not shown any more"
    return NoteStep(f"({steps}; what was done in them still counts.)", summary, left_out)
