from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Description(_message.Message):
    __slots__ = ("protocol_version", "version", "scenario", "design", "seed", "frequency_hz", "pcpus", "targets", "now", "services", "launch")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    DESIGN_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    FREQUENCY_HZ_FIELD_NUMBER: _ClassVar[int]
    PCPUS_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    LAUNCH_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    version: str
    scenario: str
    design: str
    seed: int
    frequency_hz: int
    pcpus: int
    targets: _containers.RepeatedCompositeFieldContainer[Target]
    now: int
    services: _containers.RepeatedCompositeFieldContainer[ServiceAddress]
    launch: str
    def __init__(self, protocol_version: _Optional[int] = ..., version: _Optional[str] = ..., scenario: _Optional[str] = ..., design: _Optional[str] = ..., seed: _Optional[int] = ..., frequency_hz: _Optional[int] = ..., pcpus: _Optional[int] = ..., targets: _Optional[_Iterable[_Union[Target, _Mapping]]] = ..., now: _Optional[int] = ..., services: _Optional[_Iterable[_Union[ServiceAddress, _Mapping]]] = ..., launch: _Optional[str] = ...) -> None: ...

class Target(_message.Message):
    __slots__ = ("name", "cpus", "attended")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    ATTENDED_FIELD_NUMBER: _ClassVar[int]
    name: str
    cpus: int
    attended: bool
    def __init__(self, name: _Optional[str] = ..., cpus: _Optional[int] = ..., attended: _Optional[bool] = ...) -> None: ...

class ServiceAddress(_message.Message):
    __slots__ = ("actor", "address")
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    actor: str
    address: str
    def __init__(self, actor: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...

class InjectRequest(_message.Message):
    __slots__ = ("target", "cpu", "profiles", "task", "session", "parameter")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    PROFILES_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_FIELD_NUMBER: _ClassVar[int]
    target: str
    cpu: int
    profiles: _containers.RepeatedCompositeFieldContainer[Profile]
    task: str
    session: str
    parameter: str
    def __init__(self, target: _Optional[str] = ..., cpu: _Optional[int] = ..., profiles: _Optional[_Iterable[_Union[Profile, _Mapping]]] = ..., task: _Optional[str] = ..., session: _Optional[str] = ..., parameter: _Optional[str] = ...) -> None: ...

class Profile(_message.Message):
    __slots__ = ("events", "rates")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    RATES_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedScalarFieldContainer[int]
    rates: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, events: _Optional[_Iterable[int]] = ..., rates: _Optional[_Iterable[int]] = ...) -> None: ...

class Injected(_message.Message):
    __slots__ = ("id", "entry", "now")
    ID_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    id: int
    entry: int
    now: int
    def __init__(self, id: _Optional[int] = ..., entry: _Optional[int] = ..., now: _Optional[int] = ...) -> None: ...

class ResultRequest(_message.Message):
    __slots__ = ("wait",)
    WAIT_FIELD_NUMBER: _ClassVar[int]
    wait: bool
    def __init__(self, wait: _Optional[bool] = ...) -> None: ...

class ResultReply(_message.Message):
    __slots__ = ("json", "done")
    JSON_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    json: bytes
    done: bool
    def __init__(self, json: _Optional[bytes] = ..., done: _Optional[bool] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("interval_ms",)
    INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    interval_ms: int
    def __init__(self, interval_ms: _Optional[int] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("now", "entries", "total", "left", "running", "done")
    NOW_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    now: int
    entries: int
    total: int
    left: int
    running: int
    done: bool
    def __init__(self, now: _Optional[int] = ..., entries: _Optional[int] = ..., total: _Optional[int] = ..., left: _Optional[int] = ..., running: _Optional[int] = ..., done: _Optional[bool] = ...) -> None: ...

class LogRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class InjectionLog(_message.Message):
    __slots__ = ("injections",)
    INJECTIONS_FIELD_NUMBER: _ClassVar[int]
    injections: _containers.RepeatedCompositeFieldContainer[LoggedInjection]
    def __init__(self, injections: _Optional[_Iterable[_Union[LoggedInjection, _Mapping]]] = ...) -> None: ...

class LoggedInjection(_message.Message):
    __slots__ = ("injected", "request")
    INJECTED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    injected: Injected
    request: InjectRequest
    def __init__(self, injected: _Optional[_Union[Injected, _Mapping]] = ..., request: _Optional[_Union[InjectRequest, _Mapping]] = ...) -> None: ...

class ShutdownRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ShutdownReply(_message.Message):
    __slots__ = ("now",)
    NOW_FIELD_NUMBER: _ClassVar[int]
    now: int
    def __init__(self, now: _Optional[int] = ...) -> None: ...
