"""A record of runs, read: what the agent remembers, what its sandbox had been through, and where it stopped.

The file may have been in anybody's hands: it is bounded, and checked line by line. Its code runs nowhere but in a
sandbox, and no tool is called for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.agents.memory import AgentMemory
from orchestrator.agents.memory_json import MAX_STEPS, memory_from_dict, parsed, read_kept_step, read_view, reading
from orchestrator.agents.record import FORMAT, VERSION
from orchestrator.agents.steps import ActionStep, KeptStep, NoteStep
from orchestrator.agents.tape import RecordedCall, read_call, read_end
from orchestrator.agents.value_json import one_file, read
from orchestrator.errors import AgentError
from orchestrator.events import Files, State, Status
from orchestrator.media import AgentImage

MAX_LINE = 64 << 20  # bytes: a step with pictures, and an execution with all it wrote
MAX_FILE = 2 << 30  # bytes: what a day of runs writes; more is no record


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """How a run began."""

    task: str
    images: tuple[AgentImage, ...]
    args: Mapping[str, Any]
    limit: int


@dataclass(frozen=True, slots=True)
class RecordedAction:
    """Code that a sandbox has run, and that is still in its state.

    One that was interrupted is not run again: it would not be interrupted then, and perhaps never end.

    Attributes:
        number: of the step among all in the record.
        label: which step it was, in words.
        step: as it was remembered.
        calls: of tools, by its code.
        variables: that it was given.
        count: of the execution, in the newest sandbox.
    """

    number: int
    label: str
    step: ActionStep
    calls: tuple[RecordedCall, ...]
    variables: Mapping[str, Any]
    count: int

    @property
    def is_run_again(self) -> bool:
        """Whether a new sandbox comes to its state by running it."""
        return not (self.step.execution and self.step.execution.status is Status.INTERRUPTED)


def run_again(actions: Iterable[RecordedAction]) -> tuple[list[RecordedAction], dict[str, Any]]:
    """Those that a new sandbox runs. What the others were given, the next one has; and what is left for one to come."""
    again: list[RecordedAction] = []
    left: dict[str, Any] = {}
    for action in actions:
        left = {**left, **action.variables}
        if action.is_run_again:
            again.append(replace(action, variables=left))
            left = {}
    return again, left


@dataclass(frozen=True, slots=True)
class Loss:
    """What cannot be had again of a state.

    Attributes:
        what: in words.
        of_files: nothing else. They are not there in a new sandbox, and where files have gone back with the variables;
            otherwise in a sandbox that was kept they are.
    """

    what: str
    of_files: bool = False


@dataclass(slots=True)
class Recording:
    """What is known after the last line.

    Attributes:
        memory: of the agent; its system prompt is empty.
        run: the last one.
        run_steps: its steps so far.
        actions: what the sandbox's state is made of, oldest first.
        variables: that the next action is given.
        state: values by name that steps of a ``ToolCallingAgent`` may name.
        losses: what cannot be had again of the sandbox's state.
        sandbox: the name of the one that has this state; empty if it is not known.
        count: of the execution at whose end the sandbox's state was; 0: of the beginning.
        last: execution that a step tells of, whatever became of its state.
        late_losses: how many of the losses, the newest, came after that.
        taken: variables that went with what somebody else has taken back: given again when the model has been told.
        untold: what it has not been told of that, in words.
        open_calls: of the step that was under way, by their numbers.
        lost_calls: of earlier ones that never ended, and of which the model has not been told.
        next_call: a number that no call has.
    """

    memory: AgentMemory = field(default_factory=lambda: AgentMemory(""))
    run: RecordedRun | None = None
    run_steps: list[KeptStep] = field(default_factory=list)
    actions: list[RecordedAction] = field(default_factory=list)
    variables: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    losses: list[Loss] = field(default_factory=list)
    sandbox: str = ""
    count: int = 0
    last: int = 0
    late_losses: int = 0
    taken: dict[str, Any] = field(default_factory=dict)
    untold: list[str] = field(default_factory=list)
    open_calls: dict[int, RecordedCall] = field(default_factory=dict)
    lost_calls: list[RecordedCall] = field(default_factory=list)
    next_call: int = 1
    _runs: int = 0
    _steps: int = 0
    _backs: list[tuple[int, int]] = field(default_factory=list)  # what they took, after the one and up to the other

    @property
    def late(self) -> list[Loss]:
        """The losses that came after the execution at whose end the state was."""
        return self.losses[len(self.losses) - self.late_losses :]

    # A method for each kind of line. They raise ValueError and the like for one that is none.

    def on_begin(self, line: Mapping[str, Any]) -> None:
        """An agent's life begins; what was read before belongs to another one's, see ``load_recording``."""
        if line.get("format") != FORMAT or line.get("version") != VERSION:
            raise ValueError(f"its format is not {FORMAT!r}, version {VERSION}")

    def on_resumed(self, line: Mapping[str, Any]) -> None:
        """What was under way is over; the model is told of it in the next note."""
        self.lost_calls += self.open_calls.values()
        self.open_calls = {}
        self._given_up(line)

    def _given_up(self, line: Mapping[str, Any]) -> None:
        if line["under_way"]:  # in the same sandbox, whose state has something of it
            self._lose(Loss("a step was given up midway, and what it did until then is not there"))

    def _lose(self, loss: Loss) -> None:
        self.losses.append(loss)
        self.late_losses += 1

    def on_memory(self, line: Mapping[str, Any]) -> None:
        """What the agent remembers from elsewhere."""
        self.memory = memory_from_dict(line["memory"])

    def on_continued(self, _: Mapping[str, Any]) -> None:
        """Another run takes over what there is, and has not begun."""
        self.run, self.run_steps = None, []

    def on_run(self, line: Mapping[str, Any]) -> None:
        """The next run."""
        task, images = read(line["task"]), read(line["images"])
        args, limit = read(line["args"]), line["limit"]
        if not isinstance(task, str) or not isinstance(args, dict) or not all(isinstance(name, str) for name in args):
            raise ValueError("a run whose task or variables are none")
        if not isinstance(images, list) or not all(isinstance(image, AgentImage) for image in images):
            raise ValueError("a run whose pictures are none")
        if type(limit) is not int or limit < 1:
            raise ValueError("a run without steps")
        if line["reset"]:
            self.memory.reset()
        self.run, self.run_steps = RecordedRun(task, tuple(images), args, limit), []
        self._runs += 1
        self.variables |= args
        self.state |= args
        self.lost_calls, self.open_calls = [], {}
        self._given_up(line)

    def on_step(self, line: Mapping[str, Any]) -> None:
        """The next step."""
        step, state = read_kept_step(line["step"]), read(line["state"])
        if not isinstance(state, dict) or len(self.memory.steps) >= MAX_STEPS:
            raise ValueError("a step that is none, or too many")
        self.memory.append(step)
        self.run_steps.append(step)
        self.state |= state
        if isinstance(step, ActionStep):
            self._act(step, tuple(self.open_calls.values()))
            self.open_calls = {}
        elif isinstance(step, NoteStep):
            self.lost_calls, self.untold = [], []
            self.variables, self.taken = self.taken | self.variables, {}

    def on_view(self, line: Mapping[str, Any]) -> None:
        """The model is shown less."""
        read_view(self.memory, line["view"])

    def on_call(self, line: Mapping[str, Any]) -> None:
        """A tool is called."""
        number = _number(line["call"])
        self.open_calls[number] = read_call(line)
        self.next_call = max(self.next_call, number + 1)

    def on_end(self, line: Mapping[str, Any]) -> None:
        """It has ended. One whose step has ended before it counts as not known there."""
        number, end = _number(line["call"]), read_end(line)
        if number in self.open_calls:
            self.open_calls[number] = replace(self.open_calls[number], end=end)

    def on_sandbox(self, line: Mapping[str, Any]) -> None:
        """Its state is empty."""
        self.sandbox = _name(line)
        self.actions, self.losses, self.untold, self.taken, self._backs = [], [], [], {}, []
        self.count = self.last = self.late_losses = 0

    def on_rebuilt(self, line: Mapping[str, Any]) -> None:
        """Its state is that of some actions again; what was lost then was told of."""
        counts = {_number(number): _number(count) for number, count in line["counts"]}
        self.sandbox = _name(line)
        again, left = run_again(self.actions)
        self.actions = [replace(one, count=counts[one.number]) for one in again if one.number in counts]
        self.variables = left | self.variables
        self.losses, self.late_losses, self._backs = [], 0, []
        self.count = self.last = max(counts.values(), default=0)

    def on_back(self, line: Mapping[str, Any]) -> None:
        """What was run between is not in its state; what that was given is given again."""
        to, at = _number(line["to"]), _number(line["at"])
        if self.count <= at:  # else something has run since, before the agent knew
            self.count, self.late_losses = to, 0
        gone = [action for action in self.actions if to < action.count <= at]
        self.actions = [action for action in self.actions if action not in gone]
        for action in reversed(gone):
            self.taken = {**action.variables, **self.taken}
        self._backs.append((to, at))
        found = next((action for action in self.actions if action.count == to), None)
        when = f"after {found.label}" if found else "after an earlier step" if to else "in the beginning"
        self.untold.append(f"somebody else has taken the Python state back to what it was {when}")
        if to and not found and to <= self.last:  # of a line of states that was left before
            self.losses.append(Loss("somebody had taken the state back to one that these steps do not make"))
        if not line["files"]:
            self._lose(Loss("files were kept when somebody had taken the variables back, and are not there", True))

    def _act(self, step: ActionStep, calls: tuple[RecordedCall, ...]) -> None:
        """What the step did to the sandbox's state."""
        execution, self._steps = step.execution, self._steps + 1
        if execution is None or step.code_action is None or execution.execution_count < 1:
            return  # nothing ran
        self.last = execution.execution_count
        if any(to < self.last <= at for to, at in self._backs):  # somebody was faster than its line
            return
        label = f"step {step.step_number}" + (f" of run {self._runs}" if self._runs > 1 else "")
        if execution.state is State.LOST:
            self.count = execution.restored_to or 0
            self.actions = [action for action in self.actions if action.count <= self.count]
        if execution.state is not State.KEPT:
            if execution.files is Files.KEPT:
                self._lose(Loss(f"{label} failed, and the files that it left are not there", True))
            return
        self.count, self.late_losses = execution.execution_count, 0
        variables, self.variables = self.variables, {}
        if execution.status is Status.INTERRUPTED:
            self.losses.append(Loss(f"{label} was interrupted, and what it did until then is not there"))
        count = execution.execution_count
        self.actions.append(RecordedAction(self._steps, label, step, calls, variables, count))


def _number(part: Any) -> int:
    if type(part) is not int or part < 0:
        raise ValueError("a number that is none")
    return part


def _name(line: Mapping[str, Any]) -> str:
    """Of the sandbox; older records have none."""
    name = line.get("name", "")
    if not isinstance(name, str):
        raise ValueError("a name that is none")
    return name


_KINDS = ("begin", "resumed", "memory", "continued", "run", "step", "view", "call", "end", "sandbox", "rebuilt", "back")


def load_recording(path: Path) -> Recording:
    """What is in the record at ``path``. What a crash left of a line is dropped.

    Raises:
        AgentError: it cannot be read, is too large, or is no record.
    """
    with one_file():
        return _loaded(path)


def _loaded(path: Path) -> Recording:
    recording, torn = None, None
    for number, line in enumerate(_lines(path), 1):
        try:
            with reading(f"line {number} of {path}"):
                data = parsed(line)
        except AgentError as error:
            if torn:
                raise torn from None
            torn = error  # the last line, or the last one before somebody went on
            continue
        with reading(f"line {number} of {path}"):
            kind = data.get("kind") if isinstance(data, dict) else None
            if not isinstance(kind, str) or kind not in _KINDS:
                raise ValueError("it is no line of a record")
            if torn and kind not in ("begin", "resumed", "memory", "continued", "run"):
                raise torn
            torn = None
            if kind == "begin":
                recording = Recording()
            if recording is None:
                raise ValueError("it is not the beginning of a record")
            getattr(recording, f"on_{kind}")(data)  # one of the twelve
    if recording is None:
        raise torn or AgentError(f"{path} cannot be read: it is empty")
    return recording


def _lines(path: Path) -> Iterator[bytes]:
    try:
        if path.stat().st_size > MAX_FILE:
            raise AgentError(f"{path} cannot be read: it has more than {MAX_FILE:,} bytes")
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE:
                    raise AgentError(f"{path} cannot be read: a line has more than {MAX_LINE:,} bytes")
                yield line
    except OSError as error:
        raise AgentError(f"{path} cannot be read: {error.strerror}") from None
