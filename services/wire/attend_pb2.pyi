from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_HOST: _ClassVar[Role]
    ROLE_GUEST: _ClassVar[Role]

class EntryKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENTRY_BOOT: _ClassVar[EntryKind]
    ENTRY_PMU_IRQ: _ClassVar[EntryKind]
    ENTRY_TIMER: _ClassVar[EntryKind]
    ENTRY_SGI: _ClassVar[EntryKind]
    ENTRY_RESUME: _ClassVar[EntryKind]
    ENTRY_TASK_IN: _ClassVar[EntryKind]
    ENTRY_TASK_OUT: _ClassVar[EntryKind]
    ENTRY_CALL: _ClassVar[EntryKind]
    ENTRY_REQUEST: _ClassVar[EntryKind]
    ENTRY_REPORT: _ClassVar[EntryKind]
    ENTRY_CPU_PM: _ClassVar[EntryKind]
    ENTRY_CPUHP: _ClassVar[EntryKind]
    ENTRY_READER: _ClassVar[EntryKind]
    ENTRY_USER: _ClassVar[EntryKind]
    ENTRY_EXCEPTION: _ClassVar[EntryKind]
ROLE_UNSPECIFIED: Role
ROLE_HOST: Role
ROLE_GUEST: Role
ENTRY_BOOT: EntryKind
ENTRY_PMU_IRQ: EntryKind
ENTRY_TIMER: EntryKind
ENTRY_SGI: EntryKind
ENTRY_RESUME: EntryKind
ENTRY_TASK_IN: EntryKind
ENTRY_TASK_OUT: EntryKind
ENTRY_CALL: EntryKind
ENTRY_REQUEST: EntryKind
ENTRY_REPORT: EntryKind
ENTRY_CPU_PM: EntryKind
ENTRY_CPUHP: EntryKind
ENTRY_READER: EntryKind
ENTRY_USER: EntryKind
ENTRY_EXCEPTION: EntryKind

class Hello(_message.Message):
    __slots__ = ("protocol_version", "role", "name", "cpu")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    role: Role
    name: str
    cpu: int
    def __init__(self, protocol_version: _Optional[int] = ..., role: _Optional[_Union[Role, str]] = ..., name: _Optional[str] = ..., cpu: _Optional[int] = ...) -> None: ...

class Burst(_message.Message):
    __slots__ = ("hello", "entry", "codes", "operands", "answer", "failure")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    OPERANDS_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    entry: int
    codes: _containers.RepeatedScalarFieldContainer[int]
    operands: _containers.RepeatedScalarFieldContainer[int]
    answer: bytes
    failure: str
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., entry: _Optional[int] = ..., codes: _Optional[_Iterable[int]] = ..., operands: _Optional[_Iterable[int]] = ..., answer: _Optional[bytes] = ..., failure: _Optional[str] = ...) -> None: ...

class Turn(_message.Message):
    __slots__ = ("entry", "reply", "dismissed", "hung")
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    DISMISSED_FIELD_NUMBER: _ClassVar[int]
    HUNG_FIELD_NUMBER: _ClassVar[int]
    entry: Entry
    reply: Reply
    dismissed: bool
    hung: bool
    def __init__(self, entry: _Optional[_Union[Entry, _Mapping]] = ..., reply: _Optional[_Union[Reply, _Mapping]] = ..., dismissed: _Optional[bool] = ..., hung: _Optional[bool] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("id", "kind", "now", "argument", "el", "remaining", "previous_done", "calls", "payload")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    ARGUMENT_FIELD_NUMBER: _ClassVar[int]
    EL_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_DONE_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    id: int
    kind: EntryKind
    now: int
    argument: int
    el: int
    remaining: int
    previous_done: int
    calls: _containers.RepeatedScalarFieldContainer[int]
    payload: bytes
    def __init__(self, id: _Optional[int] = ..., kind: _Optional[_Union[EntryKind, str]] = ..., now: _Optional[int] = ..., argument: _Optional[int] = ..., el: _Optional[int] = ..., remaining: _Optional[int] = ..., previous_done: _Optional[int] = ..., calls: _Optional[_Iterable[int]] = ..., payload: _Optional[bytes] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("entry", "now", "values", "esr")
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    ESR_FIELD_NUMBER: _ClassVar[int]
    entry: int
    now: int
    values: _containers.RepeatedScalarFieldContainer[int]
    esr: int
    def __init__(self, entry: _Optional[int] = ..., now: _Optional[int] = ..., values: _Optional[_Iterable[int]] = ..., esr: _Optional[int] = ...) -> None: ...
