from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Done(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SandboxId(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class CreateSandbox(_message.Message):
    __slots__ = ("key", "authorized_imports", "tools", "tool_host", "limits", "timeout_seconds", "env", "final_answer", "tool_timeout_seconds", "approve", "pool")
    class EnvEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KEY_FIELD_NUMBER: _ClassVar[int]
    AUTHORIZED_IMPORTS_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    TOOL_HOST_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    FINAL_ANSWER_FIELD_NUMBER: _ClassVar[int]
    TOOL_TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    APPROVE_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    key: str
    authorized_imports: _containers.RepeatedScalarFieldContainer[str]
    tools: _containers.RepeatedCompositeFieldContainer[ToolSpec]
    tool_host: str
    limits: Limits
    timeout_seconds: float
    env: _containers.ScalarMap[str, str]
    final_answer: bool
    tool_timeout_seconds: float
    approve: bool
    pool: str
    def __init__(self, key: _Optional[str] = ..., authorized_imports: _Optional[_Iterable[str]] = ..., tools: _Optional[_Iterable[_Union[ToolSpec, _Mapping]]] = ..., tool_host: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., timeout_seconds: _Optional[float] = ..., env: _Optional[_Mapping[str, str]] = ..., final_answer: _Optional[bool] = ..., tool_timeout_seconds: _Optional[float] = ..., approve: _Optional[bool] = ..., pool: _Optional[str] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("memory", "cpus", "pids", "disk", "inodes", "nofile", "output", "checkpoints", "checkpoint_memory", "checkpoint_files", "tool_calls", "tool_bytes")
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    PIDS_FIELD_NUMBER: _ClassVar[int]
    DISK_FIELD_NUMBER: _ClassVar[int]
    INODES_FIELD_NUMBER: _ClassVar[int]
    NOFILE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_MEMORY_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FILES_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    TOOL_BYTES_FIELD_NUMBER: _ClassVar[int]
    memory: str
    cpus: float
    pids: int
    disk: str
    inodes: int
    nofile: int
    output: str
    checkpoints: int
    checkpoint_memory: float
    checkpoint_files: str
    tool_calls: int
    tool_bytes: str
    def __init__(self, memory: _Optional[str] = ..., cpus: _Optional[float] = ..., pids: _Optional[int] = ..., disk: _Optional[str] = ..., inodes: _Optional[int] = ..., nofile: _Optional[int] = ..., output: _Optional[str] = ..., checkpoints: _Optional[int] = ..., checkpoint_memory: _Optional[float] = ..., checkpoint_files: _Optional[str] = ..., tool_calls: _Optional[int] = ..., tool_bytes: _Optional[str] = ...) -> None: ...

class Sandbox(_message.Message):
    __slots__ = ("id", "name", "state", "parent", "run", "owner", "created", "executions", "authorized_imports", "forkable", "has_final_answer", "tool_names")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Sandbox.State]
        STATE_IDLE: _ClassVar[Sandbox.State]
        STATE_BUSY: _ClassVar[Sandbox.State]
        STATE_LOST: _ClassVar[Sandbox.State]
    STATE_UNSPECIFIED: Sandbox.State
    STATE_IDLE: Sandbox.State
    STATE_BUSY: Sandbox.State
    STATE_LOST: Sandbox.State
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    EXECUTIONS_FIELD_NUMBER: _ClassVar[int]
    AUTHORIZED_IMPORTS_FIELD_NUMBER: _ClassVar[int]
    FORKABLE_FIELD_NUMBER: _ClassVar[int]
    HAS_FINAL_ANSWER_FIELD_NUMBER: _ClassVar[int]
    TOOL_NAMES_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    state: Sandbox.State
    parent: str
    run: str
    owner: str
    created: float
    executions: int
    authorized_imports: _containers.RepeatedScalarFieldContainer[str]
    forkable: bool
    has_final_answer: bool
    tool_names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[_Union[Sandbox.State, str]] = ..., parent: _Optional[str] = ..., run: _Optional[str] = ..., owner: _Optional[str] = ..., created: _Optional[float] = ..., executions: _Optional[int] = ..., authorized_imports: _Optional[_Iterable[str]] = ..., forkable: _Optional[bool] = ..., has_final_answer: _Optional[bool] = ..., tool_names: _Optional[_Iterable[str]] = ...) -> None: ...

class ListSandboxes(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SandboxList(_message.Message):
    __slots__ = ("sandboxes",)
    SANDBOXES_FIELD_NUMBER: _ClassVar[int]
    sandboxes: _containers.RepeatedCompositeFieldContainer[Sandbox]
    def __init__(self, sandboxes: _Optional[_Iterable[_Union[Sandbox, _Mapping]]] = ...) -> None: ...

class Execution(_message.Message):
    __slots__ = ("sandbox", "key", "code", "timeout_seconds", "variables", "after")
    SANDBOX_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    sandbox: str
    key: str
    code: bytes
    timeout_seconds: float
    variables: bytes
    after: int
    def __init__(self, sandbox: _Optional[str] = ..., key: _Optional[str] = ..., code: _Optional[bytes] = ..., timeout_seconds: _Optional[float] = ..., variables: _Optional[bytes] = ..., after: _Optional[int] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("number", "time", "json", "more")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    number: int
    time: float
    json: bytes
    more: bool
    def __init__(self, number: _Optional[int] = ..., time: _Optional[float] = ..., json: _Optional[bytes] = ..., more: _Optional[bool] = ...) -> None: ...

class IsolationReport(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: bytes
    def __init__(self, json: _Optional[bytes] = ...) -> None: ...

class Which(_message.Message):
    __slots__ = ("sandbox", "number", "name", "execution", "container")
    SANDBOX_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    sandbox: str
    number: int
    name: str
    execution: int
    container: str
    def __init__(self, sandbox: _Optional[str] = ..., number: _Optional[int] = ..., name: _Optional[str] = ..., execution: _Optional[int] = ..., container: _Optional[str] = ...) -> None: ...

class MakeCheckpoint(_message.Message):
    __slots__ = ("sandbox", "key", "name")
    SANDBOX_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    sandbox: str
    key: str
    name: str
    def __init__(self, sandbox: _Optional[str] = ..., key: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class CheckpointInfo(_message.Message):
    __slots__ = ("number", "name", "execution_count", "follows", "age_seconds", "memory_bytes", "has_files", "is_current", "container")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_COUNT_FIELD_NUMBER: _ClassVar[int]
    FOLLOWS_FIELD_NUMBER: _ClassVar[int]
    AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    HAS_FILES_FIELD_NUMBER: _ClassVar[int]
    IS_CURRENT_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    number: int
    name: str
    execution_count: int
    follows: int
    age_seconds: float
    memory_bytes: int
    has_files: bool
    is_current: bool
    container: str
    def __init__(self, number: _Optional[int] = ..., name: _Optional[str] = ..., execution_count: _Optional[int] = ..., follows: _Optional[int] = ..., age_seconds: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., has_files: _Optional[bool] = ..., is_current: _Optional[bool] = ..., container: _Optional[str] = ...) -> None: ...

class CheckpointList(_message.Message):
    __slots__ = ("checkpoints",)
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    checkpoints: _containers.RepeatedCompositeFieldContainer[CheckpointInfo]
    def __init__(self, checkpoints: _Optional[_Iterable[_Union[CheckpointInfo, _Mapping]]] = ...) -> None: ...

class RollbackTo(_message.Message):
    __slots__ = ("key", "sandbox", "which", "before_last", "undo")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SANDBOX_FIELD_NUMBER: _ClassVar[int]
    WHICH_FIELD_NUMBER: _ClassVar[int]
    BEFORE_LAST_FIELD_NUMBER: _ClassVar[int]
    UNDO_FIELD_NUMBER: _ClassVar[int]
    key: str
    sandbox: str
    which: Which
    before_last: bool
    undo: int
    def __init__(self, key: _Optional[str] = ..., sandbox: _Optional[str] = ..., which: _Optional[_Union[Which, _Mapping]] = ..., before_last: _Optional[bool] = ..., undo: _Optional[int] = ...) -> None: ...

class RolledBack(_message.Message):
    __slots__ = ("checkpoint", "files_restored", "files_reason")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    FILES_RESTORED_FIELD_NUMBER: _ClassVar[int]
    FILES_REASON_FIELD_NUMBER: _ClassVar[int]
    checkpoint: CheckpointInfo
    files_restored: bool
    files_reason: str
    def __init__(self, checkpoint: _Optional[_Union[CheckpointInfo, _Mapping]] = ..., files_restored: _Optional[bool] = ..., files_reason: _Optional[str] = ...) -> None: ...

class ForkAt(_message.Message):
    __slots__ = ("sandbox", "key", "at")
    SANDBOX_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    sandbox: str
    key: str
    at: Which
    def __init__(self, sandbox: _Optional[str] = ..., key: _Optional[str] = ..., at: _Optional[_Union[Which, _Mapping]] = ...) -> None: ...

class FilePath(_message.Message):
    __slots__ = ("sandbox", "path")
    SANDBOX_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    sandbox: str
    path: bytes
    def __init__(self, sandbox: _Optional[str] = ..., path: _Optional[bytes] = ...) -> None: ...

class FilePiece(_message.Message):
    __slots__ = ("sandbox", "path", "data")
    SANDBOX_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    sandbox: str
    path: bytes
    data: bytes
    def __init__(self, sandbox: _Optional[str] = ..., path: _Optional[bytes] = ..., data: _Optional[bytes] = ...) -> None: ...

class FileList(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[FileEntry]
    def __init__(self, entries: _Optional[_Iterable[_Union[FileEntry, _Mapping]]] = ...) -> None: ...

class FileEntry(_message.Message):
    __slots__ = ("path", "size")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    size: int
    def __init__(self, path: _Optional[bytes] = ..., size: _Optional[int] = ...) -> None: ...

class RunId(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class StartRun(_message.Message):
    __slots__ = ("key", "agent", "task", "max_steps", "additional_args", "tools", "tool_host", "images", "continues")
    KEY_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    ADDITIONAL_ARGS_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    TOOL_HOST_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    CONTINUES_FIELD_NUMBER: _ClassVar[int]
    key: str
    agent: str
    task: str
    max_steps: int
    additional_args: bytes
    tools: _containers.RepeatedCompositeFieldContainer[ToolSpec]
    tool_host: str
    images: _containers.RepeatedCompositeFieldContainer[Image]
    continues: str
    def __init__(self, key: _Optional[str] = ..., agent: _Optional[str] = ..., task: _Optional[str] = ..., max_steps: _Optional[int] = ..., additional_args: _Optional[bytes] = ..., tools: _Optional[_Iterable[_Union[ToolSpec, _Mapping]]] = ..., tool_host: _Optional[str] = ..., images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., continues: _Optional[str] = ...) -> None: ...

class ResumeRun(_message.Message):
    __slots__ = ("run", "tools", "tool_host")
    RUN_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    TOOL_HOST_FIELD_NUMBER: _ClassVar[int]
    run: str
    tools: _containers.RepeatedCompositeFieldContainer[ToolSpec]
    tool_host: str
    def __init__(self, run: _Optional[str] = ..., tools: _Optional[_Iterable[_Union[ToolSpec, _Mapping]]] = ..., tool_host: _Optional[str] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ("mime", "data")
    MIME_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    mime: str
    data: bytes
    def __init__(self, mime: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("id", "agent", "task", "state", "owner", "created", "started", "ended", "steps", "events", "input_tokens", "output_tokens", "error", "answer", "can_resume", "sandbox", "questions")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Run.State]
        STATE_QUEUED: _ClassVar[Run.State]
        STATE_RUNNING: _ClassVar[Run.State]
        STATE_WAITING: _ClassVar[Run.State]
        STATE_SUCCEEDED: _ClassVar[Run.State]
        STATE_FAILED: _ClassVar[Run.State]
        STATE_INTERRUPTED: _ClassVar[Run.State]
    STATE_UNSPECIFIED: Run.State
    STATE_QUEUED: Run.State
    STATE_RUNNING: Run.State
    STATE_WAITING: Run.State
    STATE_SUCCEEDED: Run.State
    STATE_FAILED: Run.State
    STATE_INTERRUPTED: Run.State
    ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    CAN_RESUME_FIELD_NUMBER: _ClassVar[int]
    SANDBOX_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    id: str
    agent: str
    task: str
    state: Run.State
    owner: str
    created: float
    started: float
    ended: float
    steps: int
    events: int
    input_tokens: int
    output_tokens: int
    error: str
    answer: bytes
    can_resume: bool
    sandbox: str
    questions: _containers.RepeatedCompositeFieldContainer[Question]
    def __init__(self, id: _Optional[str] = ..., agent: _Optional[str] = ..., task: _Optional[str] = ..., state: _Optional[_Union[Run.State, str]] = ..., owner: _Optional[str] = ..., created: _Optional[float] = ..., started: _Optional[float] = ..., ended: _Optional[float] = ..., steps: _Optional[int] = ..., events: _Optional[int] = ..., input_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., error: _Optional[str] = ..., answer: _Optional[bytes] = ..., can_resume: _Optional[bool] = ..., sandbox: _Optional[str] = ..., questions: _Optional[_Iterable[_Union[Question, _Mapping]]] = ...) -> None: ...

class Question(_message.Message):
    __slots__ = ("id", "asked", "deadline", "tool", "arguments", "code", "agent", "reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    asked: float
    deadline: float
    tool: str
    arguments: bytes
    code: str
    agent: str
    reason: str
    def __init__(self, id: _Optional[str] = ..., asked: _Optional[float] = ..., deadline: _Optional[float] = ..., tool: _Optional[str] = ..., arguments: _Optional[bytes] = ..., code: _Optional[str] = ..., agent: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("run", "question", "approved", "reason")
    RUN_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    APPROVED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    run: str
    question: str
    approved: bool
    reason: str
    def __init__(self, run: _Optional[str] = ..., question: _Optional[str] = ..., approved: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class ListRuns(_message.Message):
    __slots__ = ("limit", "before", "agent", "search")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    limit: int
    before: str
    agent: str
    search: str
    def __init__(self, limit: _Optional[int] = ..., before: _Optional[str] = ..., agent: _Optional[str] = ..., search: _Optional[str] = ...) -> None: ...

class RunList(_message.Message):
    __slots__ = ("runs",)
    RUNS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    def __init__(self, runs: _Optional[_Iterable[_Union[Run, _Mapping]]] = ...) -> None: ...

class FollowRun(_message.Message):
    __slots__ = ("run", "after")
    RUN_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    run: str
    after: int
    def __init__(self, run: _Optional[str] = ..., after: _Optional[int] = ...) -> None: ...

class ToolSpec(_message.Message):
    __slots__ = ("name", "description", "parameters", "returns", "awaitable", "timeout_seconds", "stops_clock", "inputs", "output_type")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    RETURNS_FIELD_NUMBER: _ClassVar[int]
    AWAITABLE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STOPS_CLOCK_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TYPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    parameters: _containers.RepeatedCompositeFieldContainer[Parameter]
    returns: str
    awaitable: bool
    timeout_seconds: float
    stops_clock: bool
    inputs: bytes
    output_type: str
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., parameters: _Optional[_Iterable[_Union[Parameter, _Mapping]]] = ..., returns: _Optional[str] = ..., awaitable: _Optional[bool] = ..., timeout_seconds: _Optional[float] = ..., stops_clock: _Optional[bool] = ..., inputs: _Optional[bytes] = ..., output_type: _Optional[str] = ...) -> None: ...

class Parameter(_message.Message):
    __slots__ = ("name", "kind", "annotation", "has_default", "default_repr")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Parameter.Kind]
        KIND_POSITIONAL_ONLY: _ClassVar[Parameter.Kind]
        KIND_POSITIONAL_OR_KEYWORD: _ClassVar[Parameter.Kind]
        KIND_VAR_POSITIONAL: _ClassVar[Parameter.Kind]
        KIND_KEYWORD_ONLY: _ClassVar[Parameter.Kind]
        KIND_VAR_KEYWORD: _ClassVar[Parameter.Kind]
    KIND_UNSPECIFIED: Parameter.Kind
    KIND_POSITIONAL_ONLY: Parameter.Kind
    KIND_POSITIONAL_OR_KEYWORD: Parameter.Kind
    KIND_VAR_POSITIONAL: Parameter.Kind
    KIND_KEYWORD_ONLY: Parameter.Kind
    KIND_VAR_KEYWORD: Parameter.Kind
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ANNOTATION_FIELD_NUMBER: _ClassVar[int]
    HAS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_REPR_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: Parameter.Kind
    annotation: str
    has_default: bool
    default_repr: str
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[Parameter.Kind, str]] = ..., annotation: _Optional[str] = ..., has_default: _Optional[bool] = ..., default_repr: _Optional[str] = ...) -> None: ...

class FromApp(_message.Message):
    __slots__ = ("opening", "end", "accepted")
    OPENING_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    opening: Opening
    end: CallEnd
    accepted: Accepted
    def __init__(self, opening: _Optional[_Union[Opening, _Mapping]] = ..., end: _Optional[_Union[CallEnd, _Mapping]] = ..., accepted: _Optional[_Union[Accepted, _Mapping]] = ...) -> None: ...

class Opening(_message.Message):
    __slots__ = ("host", "holds")
    HOST_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    host: str
    holds: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, host: _Optional[str] = ..., holds: _Optional[_Iterable[int]] = ...) -> None: ...

class Accepted(_message.Message):
    __slots__ = ("call",)
    CALL_FIELD_NUMBER: _ClassVar[int]
    call: int
    def __init__(self, call: _Optional[int] = ...) -> None: ...

class ToApp(_message.Message):
    __slots__ = ("opened", "call", "cancel", "ask")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    ASK_FIELD_NUMBER: _ClassVar[int]
    opened: Opened
    call: Call
    cancel: Cancel
    ask: Ask
    def __init__(self, opened: _Optional[_Union[Opened, _Mapping]] = ..., call: _Optional[_Union[Call, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., ask: _Optional[_Union[Ask, _Mapping]] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Call(_message.Message):
    __slots__ = ("call", "sandbox", "run", "tool", "positional", "keyword")
    CALL_FIELD_NUMBER: _ClassVar[int]
    SANDBOX_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    POSITIONAL_FIELD_NUMBER: _ClassVar[int]
    KEYWORD_FIELD_NUMBER: _ClassVar[int]
    call: int
    sandbox: str
    run: str
    tool: str
    positional: bytes
    keyword: bytes
    def __init__(self, call: _Optional[int] = ..., sandbox: _Optional[str] = ..., run: _Optional[str] = ..., tool: _Optional[str] = ..., positional: _Optional[bytes] = ..., keyword: _Optional[bytes] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("call",)
    CALL_FIELD_NUMBER: _ClassVar[int]
    call: int
    def __init__(self, call: _Optional[int] = ...) -> None: ...

class Ask(_message.Message):
    __slots__ = ("call", "sandbox", "tool", "arguments", "code", "timeout_seconds", "execution")
    CALL_FIELD_NUMBER: _ClassVar[int]
    SANDBOX_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    call: int
    sandbox: str
    tool: str
    arguments: bytes
    code: bytes
    timeout_seconds: float
    execution: int
    def __init__(self, call: _Optional[int] = ..., sandbox: _Optional[str] = ..., tool: _Optional[str] = ..., arguments: _Optional[bytes] = ..., code: _Optional[bytes] = ..., timeout_seconds: _Optional[float] = ..., execution: _Optional[int] = ...) -> None: ...

class CallEnd(_message.Message):
    __slots__ = ("call", "value", "failure")
    CALL_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    call: int
    value: bytes
    failure: ToolFailure
    def __init__(self, call: _Optional[int] = ..., value: _Optional[bytes] = ..., failure: _Optional[_Union[ToolFailure, _Mapping]] = ...) -> None: ...

class ToolFailure(_message.Message):
    __slots__ = ("type_name", "message")
    TYPE_NAME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    type_name: str
    message: str
    def __init__(self, type_name: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ConsoleLinkRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ConsoleAddress(_message.Message):
    __slots__ = ("url",)
    URL_FIELD_NUMBER: _ClassVar[int]
    url: str
    def __init__(self, url: _Optional[str] = ...) -> None: ...

class ServiceStatus(_message.Message):
    __slots__ = ("version", "started", "sandboxes", "runs", "queued", "engine", "agents", "console")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    SANDBOXES_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    CONSOLE_FIELD_NUMBER: _ClassVar[int]
    version: str
    started: float
    sandboxes: int
    runs: int
    queued: int
    engine: str
    agents: _containers.RepeatedScalarFieldContainer[str]
    console: str
    def __init__(self, version: _Optional[str] = ..., started: _Optional[float] = ..., sandboxes: _Optional[int] = ..., runs: _Optional[int] = ..., queued: _Optional[int] = ..., engine: _Optional[str] = ..., agents: _Optional[_Iterable[str]] = ..., console: _Optional[str] = ...) -> None: ...

class NewToken(_message.Message):
    __slots__ = ("name", "scopes", "quotas", "expires_after_seconds")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    QUOTAS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AFTER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    scopes: _containers.RepeatedScalarFieldContainer[str]
    quotas: TokenQuotas
    expires_after_seconds: float
    def __init__(self, name: _Optional[str] = ..., scopes: _Optional[_Iterable[str]] = ..., quotas: _Optional[_Union[TokenQuotas, _Mapping]] = ..., expires_after_seconds: _Optional[float] = ...) -> None: ...

class TokenQuotas(_message.Message):
    __slots__ = ("sandboxes", "cpu_seconds", "run_minutes")
    SANDBOXES_FIELD_NUMBER: _ClassVar[int]
    CPU_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RUN_MINUTES_FIELD_NUMBER: _ClassVar[int]
    sandboxes: int
    cpu_seconds: float
    run_minutes: float
    def __init__(self, sandboxes: _Optional[int] = ..., cpu_seconds: _Optional[float] = ..., run_minutes: _Optional[float] = ...) -> None: ...

class CreatedToken(_message.Message):
    __slots__ = ("token", "info")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    token: str
    info: TokenInfo
    def __init__(self, token: _Optional[str] = ..., info: _Optional[_Union[TokenInfo, _Mapping]] = ...) -> None: ...

class ListTokensRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TokenList(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[TokenInfo]
    def __init__(self, tokens: _Optional[_Iterable[_Union[TokenInfo, _Mapping]]] = ...) -> None: ...

class TokenName(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class TokenInfo(_message.Message):
    __slots__ = ("name", "scopes", "quotas", "created", "expires", "revoked", "cpu_seconds_today", "run_minutes_today")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    QUOTAS_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    CPU_SECONDS_TODAY_FIELD_NUMBER: _ClassVar[int]
    RUN_MINUTES_TODAY_FIELD_NUMBER: _ClassVar[int]
    name: str
    scopes: _containers.RepeatedScalarFieldContainer[str]
    quotas: TokenQuotas
    created: float
    expires: float
    revoked: float
    cpu_seconds_today: float
    run_minutes_today: float
    def __init__(self, name: _Optional[str] = ..., scopes: _Optional[_Iterable[str]] = ..., quotas: _Optional[_Union[TokenQuotas, _Mapping]] = ..., created: _Optional[float] = ..., expires: _Optional[float] = ..., revoked: _Optional[float] = ..., cpu_seconds_today: _Optional[float] = ..., run_minutes_today: _Optional[float] = ...) -> None: ...
