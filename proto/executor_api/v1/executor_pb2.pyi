from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HostMessage(_message.Message):
    __slots__ = ("hello", "open", "execute", "tool_result", "interrupt", "file_read", "file_write", "file_list", "attach", "checkpoint", "rollback", "fork", "list_checkpoints", "drop_checkpoint", "deadline", "resume", "end")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    EXECUTE_FIELD_NUMBER: _ClassVar[int]
    TOOL_RESULT_FIELD_NUMBER: _ClassVar[int]
    INTERRUPT_FIELD_NUMBER: _ClassVar[int]
    FILE_READ_FIELD_NUMBER: _ClassVar[int]
    FILE_WRITE_FIELD_NUMBER: _ClassVar[int]
    FILE_LIST_FIELD_NUMBER: _ClassVar[int]
    ATTACH_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    ROLLBACK_FIELD_NUMBER: _ClassVar[int]
    FORK_FIELD_NUMBER: _ClassVar[int]
    LIST_CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    DROP_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    open: Open
    execute: Execute
    tool_result: ToolResult
    interrupt: Interrupt
    file_read: FileRead
    file_write: FileWrite
    file_list: FileList
    attach: Attach
    checkpoint: Checkpoint
    rollback: Rollback
    fork: Fork
    list_checkpoints: ListCheckpoints
    drop_checkpoint: DropCheckpoint
    deadline: Deadline
    resume: Resume
    end: End
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., open: _Optional[_Union[Open, _Mapping]] = ..., execute: _Optional[_Union[Execute, _Mapping]] = ..., tool_result: _Optional[_Union[ToolResult, _Mapping]] = ..., interrupt: _Optional[_Union[Interrupt, _Mapping]] = ..., file_read: _Optional[_Union[FileRead, _Mapping]] = ..., file_write: _Optional[_Union[FileWrite, _Mapping]] = ..., file_list: _Optional[_Union[FileList, _Mapping]] = ..., attach: _Optional[_Union[Attach, _Mapping]] = ..., checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ..., rollback: _Optional[_Union[Rollback, _Mapping]] = ..., fork: _Optional[_Union[Fork, _Mapping]] = ..., list_checkpoints: _Optional[_Union[ListCheckpoints, _Mapping]] = ..., drop_checkpoint: _Optional[_Union[DropCheckpoint, _Mapping]] = ..., deadline: _Optional[_Union[Deadline, _Mapping]] = ..., resume: _Optional[_Union[Resume, _Mapping]] = ..., end: _Optional[_Union[End, _Mapping]] = ...) -> None: ...

class ExecutorMessage(_message.Message):
    __slots__ = ("challenge", "ready", "output", "tool_call", "finished", "file_reply", "attached", "state_reply", "resumed")
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    FILE_REPLY_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    STATE_REPLY_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    challenge: Challenge
    ready: Ready
    output: Output
    tool_call: ToolCall
    finished: Finished
    file_reply: FileReply
    attached: Attached
    state_reply: StateReply
    resumed: Resumed
    def __init__(self, challenge: _Optional[_Union[Challenge, _Mapping]] = ..., ready: _Optional[_Union[Ready, _Mapping]] = ..., output: _Optional[_Union[Output, _Mapping]] = ..., tool_call: _Optional[_Union[ToolCall, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ..., file_reply: _Optional[_Union[FileReply, _Mapping]] = ..., attached: _Optional[_Union[Attached, _Mapping]] = ..., state_reply: _Optional[_Union[StateReply, _Mapping]] = ..., resumed: _Optional[_Union[Resumed, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol_version", "session_id", "host_nonce")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    HOST_NONCE_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    session_id: bytes
    host_nonce: bytes
    def __init__(self, protocol_version: _Optional[int] = ..., session_id: _Optional[bytes] = ..., host_nonce: _Optional[bytes] = ...) -> None: ...

class Challenge(_message.Message):
    __slots__ = ("protocol_version", "executor_nonce", "proof")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    EXECUTOR_NONCE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    executor_nonce: bytes
    proof: bytes
    def __init__(self, protocol_version: _Optional[int] = ..., executor_nonce: _Optional[bytes] = ..., proof: _Optional[bytes] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("proof", "import_rules", "tools", "final_answer", "env", "memory_bytes", "output_bytes", "grace_seconds", "checkpoints", "checkpoint_share", "checkpoint_files", "outlives_host", "masked_paths", "read_only_paths")
    class EnvEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PROOF_FIELD_NUMBER: _ClassVar[int]
    IMPORT_RULES_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    FINAL_ANSWER_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    GRACE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_SHARE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FILES_FIELD_NUMBER: _ClassVar[int]
    OUTLIVES_HOST_FIELD_NUMBER: _ClassVar[int]
    MASKED_PATHS_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_PATHS_FIELD_NUMBER: _ClassVar[int]
    proof: bytes
    import_rules: _containers.RepeatedScalarFieldContainer[str]
    tools: _containers.RepeatedCompositeFieldContainer[ToolSpec]
    final_answer: bool
    env: _containers.ScalarMap[str, str]
    memory_bytes: int
    output_bytes: int
    grace_seconds: float
    checkpoints: int
    checkpoint_share: float
    checkpoint_files: int
    outlives_host: bool
    masked_paths: _containers.RepeatedScalarFieldContainer[str]
    read_only_paths: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, proof: _Optional[bytes] = ..., import_rules: _Optional[_Iterable[str]] = ..., tools: _Optional[_Iterable[_Union[ToolSpec, _Mapping]]] = ..., final_answer: _Optional[bool] = ..., env: _Optional[_Mapping[str, str]] = ..., memory_bytes: _Optional[int] = ..., output_bytes: _Optional[int] = ..., grace_seconds: _Optional[float] = ..., checkpoints: _Optional[int] = ..., checkpoint_share: _Optional[float] = ..., checkpoint_files: _Optional[int] = ..., outlives_host: _Optional[bool] = ..., masked_paths: _Optional[_Iterable[str]] = ..., read_only_paths: _Optional[_Iterable[str]] = ...) -> None: ...

class Resume(_message.Message):
    __slots__ = ("proof",)
    PROOF_FIELD_NUMBER: _ClassVar[int]
    proof: bytes
    def __init__(self, proof: _Optional[bytes] = ...) -> None: ...

class End(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Resumed(_message.Message):
    __slots__ = ("last_execution", "forkable")
    LAST_EXECUTION_FIELD_NUMBER: _ClassVar[int]
    FORKABLE_FIELD_NUMBER: _ClassVar[int]
    last_execution: int
    forkable: bool
    def __init__(self, last_execution: _Optional[int] = ..., forkable: _Optional[bool] = ...) -> None: ...

class ToolSpec(_message.Message):
    __slots__ = ("name", "doc", "parameters", "returns", "awaitable")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DOC_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    RETURNS_FIELD_NUMBER: _ClassVar[int]
    AWAITABLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    doc: str
    parameters: _containers.RepeatedCompositeFieldContainer[Parameter]
    returns: str
    awaitable: bool
    def __init__(self, name: _Optional[str] = ..., doc: _Optional[str] = ..., parameters: _Optional[_Iterable[_Union[Parameter, _Mapping]]] = ..., returns: _Optional[str] = ..., awaitable: _Optional[bool] = ...) -> None: ...

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

class Ready(_message.Message):
    __slots__ = ("processes", "interfaces", "root_read_only", "supervisor_uid", "runner_uid", "python_version", "kernel", "cgroup_version", "writable_mounts", "landlock_abi", "cgroup", "unmasked_paths", "writable_paths", "devices", "runner_limits", "warden_pid", "kernel_build", "own_user_ids", "security_label", "allowed_calls")
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    INTERFACES_FIELD_NUMBER: _ClassVar[int]
    ROOT_READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    SUPERVISOR_UID_FIELD_NUMBER: _ClassVar[int]
    RUNNER_UID_FIELD_NUMBER: _ClassVar[int]
    PYTHON_VERSION_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    CGROUP_VERSION_FIELD_NUMBER: _ClassVar[int]
    WRITABLE_MOUNTS_FIELD_NUMBER: _ClassVar[int]
    LANDLOCK_ABI_FIELD_NUMBER: _ClassVar[int]
    CGROUP_FIELD_NUMBER: _ClassVar[int]
    UNMASKED_PATHS_FIELD_NUMBER: _ClassVar[int]
    WRITABLE_PATHS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    RUNNER_LIMITS_FIELD_NUMBER: _ClassVar[int]
    WARDEN_PID_FIELD_NUMBER: _ClassVar[int]
    KERNEL_BUILD_FIELD_NUMBER: _ClassVar[int]
    OWN_USER_IDS_FIELD_NUMBER: _ClassVar[int]
    SECURITY_LABEL_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_CALLS_FIELD_NUMBER: _ClassVar[int]
    processes: _containers.RepeatedCompositeFieldContainer[Process]
    interfaces: _containers.RepeatedScalarFieldContainer[str]
    root_read_only: bool
    supervisor_uid: int
    runner_uid: int
    python_version: str
    kernel: str
    cgroup_version: int
    writable_mounts: _containers.RepeatedCompositeFieldContainer[Mount]
    landlock_abi: int
    cgroup: CgroupLimits
    unmasked_paths: _containers.RepeatedScalarFieldContainer[str]
    writable_paths: _containers.RepeatedScalarFieldContainer[str]
    devices: _containers.RepeatedCompositeFieldContainer[Device]
    runner_limits: _containers.RepeatedCompositeFieldContainer[Rlimit]
    warden_pid: int
    kernel_build: str
    own_user_ids: bool
    security_label: str
    allowed_calls: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, processes: _Optional[_Iterable[_Union[Process, _Mapping]]] = ..., interfaces: _Optional[_Iterable[str]] = ..., root_read_only: _Optional[bool] = ..., supervisor_uid: _Optional[int] = ..., runner_uid: _Optional[int] = ..., python_version: _Optional[str] = ..., kernel: _Optional[str] = ..., cgroup_version: _Optional[int] = ..., writable_mounts: _Optional[_Iterable[_Union[Mount, _Mapping]]] = ..., landlock_abi: _Optional[int] = ..., cgroup: _Optional[_Union[CgroupLimits, _Mapping]] = ..., unmasked_paths: _Optional[_Iterable[str]] = ..., writable_paths: _Optional[_Iterable[str]] = ..., devices: _Optional[_Iterable[_Union[Device, _Mapping]]] = ..., runner_limits: _Optional[_Iterable[_Union[Rlimit, _Mapping]]] = ..., warden_pid: _Optional[int] = ..., kernel_build: _Optional[str] = ..., own_user_ids: _Optional[bool] = ..., security_label: _Optional[str] = ..., allowed_calls: _Optional[_Iterable[str]] = ...) -> None: ...

class CgroupLimits(_message.Message):
    __slots__ = ("memory", "swap", "pids", "cpus", "machine_swap")
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    SWAP_FIELD_NUMBER: _ClassVar[int]
    PIDS_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    MACHINE_SWAP_FIELD_NUMBER: _ClassVar[int]
    memory: int
    swap: int
    pids: int
    cpus: float
    machine_swap: int
    def __init__(self, memory: _Optional[int] = ..., swap: _Optional[int] = ..., pids: _Optional[int] = ..., cpus: _Optional[float] = ..., machine_swap: _Optional[int] = ...) -> None: ...

class Device(_message.Message):
    __slots__ = ("path", "block", "major", "minor")
    PATH_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    path: str
    block: bool
    major: int
    minor: int
    def __init__(self, path: _Optional[str] = ..., block: _Optional[bool] = ..., major: _Optional[int] = ..., minor: _Optional[int] = ...) -> None: ...

class Rlimit(_message.Message):
    __slots__ = ("name", "hard")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HARD_FIELD_NUMBER: _ClassVar[int]
    name: str
    hard: int
    def __init__(self, name: _Optional[str] = ..., hard: _Optional[int] = ...) -> None: ...

class Process(_message.Message):
    __slots__ = ("pid", "uid", "capabilities", "no_new_privileges", "seccomp_mode", "seccomp_filters", "oom_score_adj", "inspectable")
    PID_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    NO_NEW_PRIVILEGES_FIELD_NUMBER: _ClassVar[int]
    SECCOMP_MODE_FIELD_NUMBER: _ClassVar[int]
    SECCOMP_FILTERS_FIELD_NUMBER: _ClassVar[int]
    OOM_SCORE_ADJ_FIELD_NUMBER: _ClassVar[int]
    INSPECTABLE_FIELD_NUMBER: _ClassVar[int]
    pid: int
    uid: int
    capabilities: int
    no_new_privileges: bool
    seccomp_mode: int
    seccomp_filters: int
    oom_score_adj: int
    inspectable: bool
    def __init__(self, pid: _Optional[int] = ..., uid: _Optional[int] = ..., capabilities: _Optional[int] = ..., no_new_privileges: _Optional[bool] = ..., seccomp_mode: _Optional[int] = ..., seccomp_filters: _Optional[int] = ..., oom_score_adj: _Optional[int] = ..., inspectable: _Optional[bool] = ...) -> None: ...

class Mount(_message.Message):
    __slots__ = ("path", "options", "uid", "mode", "bytes", "inodes")
    PATH_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    INODES_FIELD_NUMBER: _ClassVar[int]
    path: str
    options: str
    uid: int
    mode: int
    bytes: int
    inodes: int
    def __init__(self, path: _Optional[str] = ..., options: _Optional[str] = ..., uid: _Optional[int] = ..., mode: _Optional[int] = ..., bytes: _Optional[int] = ..., inodes: _Optional[int] = ...) -> None: ...

class Execute(_message.Message):
    __slots__ = ("id", "code", "timeout_seconds", "variables")
    ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    id: int
    code: bytes
    timeout_seconds: float
    variables: bytes
    def __init__(self, id: _Optional[int] = ..., code: _Optional[bytes] = ..., timeout_seconds: _Optional[float] = ..., variables: _Optional[bytes] = ...) -> None: ...

class Interrupt(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class Deadline(_message.Message):
    __slots__ = ("id", "seconds")
    ID_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    id: int
    seconds: float
    def __init__(self, id: _Optional[int] = ..., seconds: _Optional[float] = ...) -> None: ...

class Output(_message.Message):
    __slots__ = ("id", "stream", "text", "dropped_before")
    class Stream(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STREAM_UNSPECIFIED: _ClassVar[Output.Stream]
        STREAM_STDOUT: _ClassVar[Output.Stream]
        STREAM_STDERR: _ClassVar[Output.Stream]
    STREAM_UNSPECIFIED: Output.Stream
    STREAM_STDOUT: Output.Stream
    STREAM_STDERR: Output.Stream
    ID_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    id: int
    stream: Output.Stream
    text: bytes
    dropped_before: int
    def __init__(self, id: _Optional[int] = ..., stream: _Optional[_Union[Output.Stream, str]] = ..., text: _Optional[bytes] = ..., dropped_before: _Optional[int] = ...) -> None: ...

class ToolCall(_message.Message):
    __slots__ = ("id", "call", "name", "arguments")
    ID_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    id: int
    call: int
    name: bytes
    arguments: bytes
    def __init__(self, id: _Optional[int] = ..., call: _Optional[int] = ..., name: _Optional[bytes] = ..., arguments: _Optional[bytes] = ...) -> None: ...

class Arguments(_message.Message):
    __slots__ = ("positional", "keyword")
    POSITIONAL_FIELD_NUMBER: _ClassVar[int]
    KEYWORD_FIELD_NUMBER: _ClassVar[int]
    positional: ValueList
    keyword: Pairs
    def __init__(self, positional: _Optional[_Union[ValueList, _Mapping]] = ..., keyword: _Optional[_Union[Pairs, _Mapping]] = ...) -> None: ...

class ToolResult(_message.Message):
    __slots__ = ("id", "call", "value", "failure")
    ID_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    id: int
    call: int
    value: bytes
    failure: ToolFailure
    def __init__(self, id: _Optional[int] = ..., call: _Optional[int] = ..., value: _Optional[bytes] = ..., failure: _Optional[_Union[ToolFailure, _Mapping]] = ...) -> None: ...

class ToolFailure(_message.Message):
    __slots__ = ("type_name", "message")
    TYPE_NAME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    type_name: str
    message: str
    def __init__(self, type_name: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("id", "status", "state", "usage", "outcome", "final_answer", "reason", "dropped_bytes", "forkable", "restored_to", "files_restored", "files_reason", "spent")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATUS_UNSPECIFIED: _ClassVar[Finished.Status]
        STATUS_OK: _ClassVar[Finished.Status]
        STATUS_ERROR: _ClassVar[Finished.Status]
        STATUS_IMPORT_DENIED: _ClassVar[Finished.Status]
        STATUS_TIMEOUT: _ClassVar[Finished.Status]
        STATUS_INTERRUPTED: _ClassVar[Finished.Status]
        STATUS_OUT_OF_MEMORY: _ClassVar[Finished.Status]
        STATUS_DIED: _ClassVar[Finished.Status]
        STATUS_OUTPUT_LIMIT: _ClassVar[Finished.Status]
    STATUS_UNSPECIFIED: Finished.Status
    STATUS_OK: Finished.Status
    STATUS_ERROR: Finished.Status
    STATUS_IMPORT_DENIED: Finished.Status
    STATUS_TIMEOUT: Finished.Status
    STATUS_INTERRUPTED: Finished.Status
    STATUS_OUT_OF_MEMORY: Finished.Status
    STATUS_DIED: Finished.Status
    STATUS_OUTPUT_LIMIT: Finished.Status
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Finished.State]
        STATE_KEPT: _ClassVar[Finished.State]
        STATE_RESTORED: _ClassVar[Finished.State]
        STATE_LOST: _ClassVar[Finished.State]
    STATE_UNSPECIFIED: Finished.State
    STATE_KEPT: Finished.State
    STATE_RESTORED: Finished.State
    STATE_LOST: Finished.State
    ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    FINAL_ANSWER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DROPPED_BYTES_FIELD_NUMBER: _ClassVar[int]
    FORKABLE_FIELD_NUMBER: _ClassVar[int]
    RESTORED_TO_FIELD_NUMBER: _ClassVar[int]
    FILES_RESTORED_FIELD_NUMBER: _ClassVar[int]
    FILES_REASON_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    id: int
    status: Finished.Status
    state: Finished.State
    usage: Usage
    outcome: bytes
    final_answer: bytes
    reason: str
    dropped_bytes: int
    forkable: bool
    restored_to: int
    files_restored: bool
    files_reason: bytes
    spent: bool
    def __init__(self, id: _Optional[int] = ..., status: _Optional[_Union[Finished.Status, str]] = ..., state: _Optional[_Union[Finished.State, str]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., outcome: _Optional[bytes] = ..., final_answer: _Optional[bytes] = ..., reason: _Optional[str] = ..., dropped_bytes: _Optional[int] = ..., forkable: _Optional[bool] = ..., restored_to: _Optional[int] = ..., files_restored: _Optional[bool] = ..., files_reason: _Optional[bytes] = ..., spent: _Optional[bool] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("wall_seconds", "cpu_seconds", "peak_memory_bytes", "output_bytes", "tool_calls")
    WALL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CPU_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    output_bytes: int
    tool_calls: int
    def __init__(self, wall_seconds: _Optional[float] = ..., cpu_seconds: _Optional[float] = ..., peak_memory_bytes: _Optional[int] = ..., output_bytes: _Optional[int] = ..., tool_calls: _Optional[int] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("value", "text", "results", "error")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    value: Value
    text: bytes
    results: _containers.RepeatedCompositeFieldContainer[Bundle]
    error: Failure
    def __init__(self, value: _Optional[_Union[Value, _Mapping]] = ..., text: _Optional[bytes] = ..., results: _Optional[_Iterable[_Union[Bundle, _Mapping]]] = ..., error: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class Bundle(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: _containers.RepeatedCompositeFieldContainer[MimeData]
    def __init__(self, data: _Optional[_Iterable[_Union[MimeData, _Mapping]]] = ...) -> None: ...

class MimeData(_message.Message):
    __slots__ = ("mime", "data")
    MIME_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    mime: bytes
    data: bytes
    def __init__(self, mime: _Optional[bytes] = ..., data: _Optional[bytes] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("type_name", "message", "traceback")
    TYPE_NAME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    type_name: bytes
    message: bytes
    traceback: bytes
    def __init__(self, type_name: _Optional[bytes] = ..., message: _Optional[bytes] = ..., traceback: _Optional[bytes] = ...) -> None: ...

class FileRead(_message.Message):
    __slots__ = ("path", "offset", "length")
    PATH_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    offset: int
    length: int
    def __init__(self, path: _Optional[bytes] = ..., offset: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class FileWrite(_message.Message):
    __slots__ = ("path", "data", "append")
    PATH_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    data: bytes
    append: bool
    def __init__(self, path: _Optional[bytes] = ..., data: _Optional[bytes] = ..., append: _Optional[bool] = ...) -> None: ...

class FileList(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FileReply(_message.Message):
    __slots__ = ("data", "entries", "error")
    DATA_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    entries: _containers.RepeatedCompositeFieldContainer[FileEntry]
    error: bytes
    def __init__(self, data: _Optional[bytes] = ..., entries: _Optional[_Iterable[_Union[FileEntry, _Mapping]]] = ..., error: _Optional[bytes] = ...) -> None: ...

class FileEntry(_message.Message):
    __slots__ = ("path", "size")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    size: int
    def __init__(self, path: _Optional[bytes] = ..., size: _Optional[int] = ...) -> None: ...

class Target(_message.Message):
    __slots__ = ("number", "name", "execution", "before_last")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    BEFORE_LAST_FIELD_NUMBER: _ClassVar[int]
    number: int
    name: bytes
    execution: int
    before_last: bool
    def __init__(self, number: _Optional[int] = ..., name: _Optional[bytes] = ..., execution: _Optional[int] = ..., before_last: _Optional[bool] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: bytes
    def __init__(self, name: _Optional[bytes] = ...) -> None: ...

class Rollback(_message.Message):
    __slots__ = ("to", "only_from")
    TO_FIELD_NUMBER: _ClassVar[int]
    ONLY_FROM_FIELD_NUMBER: _ClassVar[int]
    to: Target
    only_from: int
    def __init__(self, to: _Optional[_Union[Target, _Mapping]] = ..., only_from: _Optional[int] = ...) -> None: ...

class Fork(_message.Message):
    __slots__ = ("at",)
    AT_FIELD_NUMBER: _ClassVar[int]
    at: Target
    def __init__(self, at: _Optional[_Union[Target, _Mapping]] = ...) -> None: ...

class ListCheckpoints(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DropCheckpoint(_message.Message):
    __slots__ = ("target",)
    TARGET_FIELD_NUMBER: _ClassVar[int]
    target: Target
    def __init__(self, target: _Optional[_Union[Target, _Mapping]] = ...) -> None: ...

class Attach(_message.Message):
    __slots__ = ("branch", "secret")
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    branch: int
    secret: bytes
    def __init__(self, branch: _Optional[int] = ..., secret: _Optional[bytes] = ...) -> None: ...

class Attached(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StateReply(_message.Message):
    __slots__ = ("error", "missing", "checkpoints", "files_restored", "files_reason", "forked")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    FILES_RESTORED_FIELD_NUMBER: _ClassVar[int]
    FILES_REASON_FIELD_NUMBER: _ClassVar[int]
    FORKED_FIELD_NUMBER: _ClassVar[int]
    error: str
    missing: bool
    checkpoints: _containers.RepeatedCompositeFieldContainer[CheckpointInfo]
    files_restored: bool
    files_reason: bytes
    forked: Forked
    def __init__(self, error: _Optional[str] = ..., missing: _Optional[bool] = ..., checkpoints: _Optional[_Iterable[_Union[CheckpointInfo, _Mapping]]] = ..., files_restored: _Optional[bool] = ..., files_reason: _Optional[bytes] = ..., forked: _Optional[_Union[Forked, _Mapping]] = ...) -> None: ...

class CheckpointInfo(_message.Message):
    __slots__ = ("number", "name", "execution", "has_parent", "parent", "age_seconds", "memory_bytes", "has_files", "current")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    HAS_PARENT_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    HAS_FILES_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    number: int
    name: bytes
    execution: int
    has_parent: bool
    parent: int
    age_seconds: float
    memory_bytes: int
    has_files: bool
    current: bool
    def __init__(self, number: _Optional[int] = ..., name: _Optional[bytes] = ..., execution: _Optional[int] = ..., has_parent: _Optional[bool] = ..., parent: _Optional[int] = ..., age_seconds: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., has_files: _Optional[bool] = ..., current: _Optional[bool] = ...) -> None: ...

class Forked(_message.Message):
    __slots__ = ("branch", "secret", "execution")
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    branch: int
    secret: bytes
    execution: int
    def __init__(self, branch: _Optional[int] = ..., secret: _Optional[bytes] = ..., execution: _Optional[int] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("none", "boolean", "integer", "big_integer", "number", "text", "data", "list", "tuple", "set", "frozen_set", "dict", "datetime", "date", "time", "timedelta", "decimal", "complex", "ndarray", "opaque", "media", "table")
    NONE_FIELD_NUMBER: _ClassVar[int]
    BOOLEAN_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    BIG_INTEGER_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    TUPLE_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    FROZEN_SET_FIELD_NUMBER: _ClassVar[int]
    DICT_FIELD_NUMBER: _ClassVar[int]
    DATETIME_FIELD_NUMBER: _ClassVar[int]
    DATE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    TIMEDELTA_FIELD_NUMBER: _ClassVar[int]
    DECIMAL_FIELD_NUMBER: _ClassVar[int]
    COMPLEX_FIELD_NUMBER: _ClassVar[int]
    NDARRAY_FIELD_NUMBER: _ClassVar[int]
    OPAQUE_FIELD_NUMBER: _ClassVar[int]
    MEDIA_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    none: bool
    boolean: bool
    integer: int
    big_integer: bytes
    number: float
    text: bytes
    data: bytes
    list: ValueList
    tuple: ValueList
    set: ValueList
    frozen_set: ValueList
    dict: Pairs
    datetime: bytes
    date: bytes
    time: bytes
    timedelta: Timedelta
    decimal: bytes
    complex: Complex
    ndarray: NDArray
    opaque: Opaque
    media: Media
    table: Table
    def __init__(self, none: _Optional[bool] = ..., boolean: _Optional[bool] = ..., integer: _Optional[int] = ..., big_integer: _Optional[bytes] = ..., number: _Optional[float] = ..., text: _Optional[bytes] = ..., data: _Optional[bytes] = ..., list: _Optional[_Union[ValueList, _Mapping]] = ..., tuple: _Optional[_Union[ValueList, _Mapping]] = ..., set: _Optional[_Union[ValueList, _Mapping]] = ..., frozen_set: _Optional[_Union[ValueList, _Mapping]] = ..., dict: _Optional[_Union[Pairs, _Mapping]] = ..., datetime: _Optional[bytes] = ..., date: _Optional[bytes] = ..., time: _Optional[bytes] = ..., timedelta: _Optional[_Union[Timedelta, _Mapping]] = ..., decimal: _Optional[bytes] = ..., complex: _Optional[_Union[Complex, _Mapping]] = ..., ndarray: _Optional[_Union[NDArray, _Mapping]] = ..., opaque: _Optional[_Union[Opaque, _Mapping]] = ..., media: _Optional[_Union[Media, _Mapping]] = ..., table: _Optional[_Union[Table, _Mapping]] = ...) -> None: ...

class ValueList(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, items: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class Pairs(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Pair]
    def __init__(self, items: _Optional[_Iterable[_Union[Pair, _Mapping]]] = ...) -> None: ...

class Pair(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: Value
    value: Value
    def __init__(self, key: _Optional[_Union[Value, _Mapping]] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class Timedelta(_message.Message):
    __slots__ = ("days", "seconds", "microseconds")
    DAYS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    MICROSECONDS_FIELD_NUMBER: _ClassVar[int]
    days: int
    seconds: int
    microseconds: int
    def __init__(self, days: _Optional[int] = ..., seconds: _Optional[int] = ..., microseconds: _Optional[int] = ...) -> None: ...

class Complex(_message.Message):
    __slots__ = ("real", "imag")
    REAL_FIELD_NUMBER: _ClassVar[int]
    IMAG_FIELD_NUMBER: _ClassVar[int]
    real: float
    imag: float
    def __init__(self, real: _Optional[float] = ..., imag: _Optional[float] = ...) -> None: ...

class NDArray(_message.Message):
    __slots__ = ("dtype", "shape", "data")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    dtype: bytes
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, dtype: _Optional[bytes] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Opaque(_message.Message):
    __slots__ = ("type_name", "repr")
    TYPE_NAME_FIELD_NUMBER: _ClassVar[int]
    REPR_FIELD_NUMBER: _ClassVar[int]
    type_name: bytes
    repr: bytes
    def __init__(self, type_name: _Optional[bytes] = ..., repr: _Optional[bytes] = ...) -> None: ...

class Media(_message.Message):
    __slots__ = ("format", "data")
    class Format(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FORMAT_UNSPECIFIED: _ClassVar[Media.Format]
        FORMAT_PNG: _ClassVar[Media.Format]
        FORMAT_JPEG: _ClassVar[Media.Format]
        FORMAT_GIF: _ClassVar[Media.Format]
        FORMAT_WEBP: _ClassVar[Media.Format]
        FORMAT_WAV: _ClassVar[Media.Format]
        FORMAT_MPEG: _ClassVar[Media.Format]
        FORMAT_OGG: _ClassVar[Media.Format]
        FORMAT_FLAC: _ClassVar[Media.Format]
    FORMAT_UNSPECIFIED: Media.Format
    FORMAT_PNG: Media.Format
    FORMAT_JPEG: Media.Format
    FORMAT_GIF: Media.Format
    FORMAT_WEBP: Media.Format
    FORMAT_WAV: Media.Format
    FORMAT_MPEG: Media.Format
    FORMAT_OGG: Media.Format
    FORMAT_FLAC: Media.Format
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    format: Media.Format
    data: bytes
    def __init__(self, format: _Optional[_Union[Media.Format, str]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Table(_message.Message):
    __slots__ = ("columns", "index", "series")
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SERIES_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.RepeatedCompositeFieldContainer[Pair]
    index: Pair
    series: bool
    def __init__(self, columns: _Optional[_Iterable[_Union[Pair, _Mapping]]] = ..., index: _Optional[_Union[Pair, _Mapping]] = ..., series: _Optional[bool] = ...) -> None: ...
