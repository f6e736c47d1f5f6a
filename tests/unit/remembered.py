"""Values, steps and outcomes of all kinds, for the tests of what is written down."""

from __future__ import annotations

import dataclasses
import datetime
import json
import string
from decimal import Decimal
from typing import Any, get_args

from hypothesis import strategies as st

from orchestrator.agents import ActionStep, CallResult, PlanningStep, StepError, TaskStep, Timing
from orchestrator.agents.steps import ErrorKind, NoteStep
from orchestrator.agents.value_json import read, written
from orchestrator.events import Ending, Execution, ExecutionError, Files, FinalAnswer, Logs, State, Status, ToolOutcome
from orchestrator.media import AgentAudio, AgentImage
from orchestrator.models import ChatToolCall, TokenUsage
from orchestrator.sandbox import NDArray, Opaque, Table
from tests.unit.pictures import PICTURE, PNG

WAV = b"RIFF\x00\x00\x00\x00WAVErest"

TEXT = st.text(st.characters(codec=None), max_size=30)  # surrogates included
NAMES = st.text(string.ascii_letters, min_size=1, max_size=8)
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**600), 2**600),
    st.floats(),
    TEXT,
    st.binary(max_size=20),
    st.datetimes(timezones=st.none() | st.just(datetime.UTC)).map(lambda value: value.replace(fold=0)),
    st.dates(),
    st.times().map(lambda value: value.replace(fold=0)),
    st.timedeltas(),
    st.decimals(),
    st.complex_numbers(),
)
TAG_LIKE = st.dictionaries(st.sampled_from(["$type", "items", "value", "data"]), TEXT | st.just("bytes"), max_size=3)
HASHABLE = SCALARS.filter(lambda value: not (isinstance(value, Decimal) and value.is_snan()))
VALUES = st.recursive(
    SCALARS
    | TAG_LIKE
    | st.just(NDArray("int16", (2, 1), b"\x01\x00\x02\x00"))
    | st.just(PICTURE)
    | st.just(AgentAudio(WAV, "audio/wav"))
    | st.builds(Opaque, TEXT, TEXT),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=2).map(lambda values: Table((("a", values), (3, values)), ("i", values))),
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(TEXT, inner, max_size=3),
        st.dictionaries(HASHABLE, inner, max_size=3),
        st.sets(HASHABLE, max_size=3),
        st.frozensets(HASHABLE, max_size=3),
    ),
    max_leaves=8,
)
TIMINGS = st.builds(Timing, st.floats(0, 2e9), st.floats(0, 1e5))
USAGES = st.none() | st.builds(TokenUsage, st.integers(0, 10**9), st.integers(0, 10**9))
IMAGES = st.lists(st.binary(max_size=9).map(lambda end: AgentImage(PNG + end, "image/png")), max_size=2).map(tuple)
ERRORS = st.none() | st.builds(StepError, st.sampled_from(get_args(ErrorKind)), TEXT)
CALLS = st.builds(CallResult, st.builds(ChatToolCall, NAMES, VALUES, NAMES), TEXT, st.booleans())
OUTCOMES = st.builds(ToolOutcome, st.integers(0, 99), NAMES, st.none() | TEXT, st.floats(0, 9), st.sampled_from(Ending))
EXECUTIONS = st.builds(
    Execution,
    status=st.sampled_from(Status),
    state=st.sampled_from(State),
    execution_count=st.integers(0, 1000),
    value=VALUES,
    text=st.none() | TEXT,
    logs=st.builds(
        Logs, TEXT, TEXT, st.integers(0, 99), st.none() | st.dictionaries(st.just("stdout"), st.binary(max_size=9))
    ),
    results=st.lists(st.dictionaries(NAMES, TEXT | st.binary(max_size=9), max_size=2), max_size=2).map(tuple),
    error=st.none() | st.builds(ExecutionError, TEXT, TEXT, TEXT),
    final_answer=st.none() | st.builds(FinalAnswer, VALUES),
    restored_to=st.none() | st.integers(0, 9),
    files=st.sampled_from(Files),
    tool_calls=st.lists(OUTCOMES, max_size=2).map(tuple),
)
ACTIONS = st.builds(
    ActionStep,
    step_number=st.integers(1, 99),
    timing=TIMINGS,
    model_output=TEXT,
    code_action=st.none() | TEXT,
    observations=st.none() | TEXT,
    remarks=TEXT,
    error=ERRORS,
    execution=st.none() | EXECUTIONS,
    token_usage=USAGES,
    is_final_answer=st.booleans(),
    action_output=VALUES,
    tool_calls=st.lists(CALLS, max_size=2).map(tuple),
    native_calls=st.booleans(),
    observations_images=IMAGES,
)
STEPS = st.one_of(
    st.builds(TaskStep, TEXT, IMAGES),
    st.builds(PlanningStep, TEXT, TIMINGS, USAGES),
    ACTIONS,
    st.builds(NoteStep, TEXT, TEXT, st.integers(0, 9)),
)


def again(value: Any) -> Any:
    return read(json.loads(json.dumps(written(value), allow_nan=False)))


def same(a: Any, b: Any) -> bool:
    """Equal and of the same types, nan included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(k, m) and same(a[k], b[m]) for k, m in zip(a, b, strict=True))
    if isinstance(a, (set, frozenset)):
        return sorted(map(repr, a)) == sorted(map(repr, b))
    if dataclasses.is_dataclass(a) and not isinstance(a, AgentImage | AgentAudio):
        return all(same(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(a))
    return repr(a) == repr(b) and (isinstance(a, Decimal | float | complex) or a == b)
