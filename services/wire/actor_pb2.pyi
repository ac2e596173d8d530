from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StateRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StateReply(_message.Message):
    __slots__ = ("name", "state", "server")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: bytes
    server: CallStatistics
    def __init__(self, name: _Optional[str] = ..., state: _Optional[bytes] = ..., server: _Optional[_Union[CallStatistics, _Mapping]] = ...) -> None: ...

class CallStatistics(_message.Message):
    __slots__ = ("in_flight", "completed", "failed")
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    in_flight: int
    completed: int
    failed: int
    def __init__(self, in_flight: _Optional[int] = ..., completed: _Optional[int] = ..., failed: _Optional[int] = ...) -> None: ...
