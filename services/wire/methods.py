"""The methods of pmulab's own services, typed."""

from services.rpc.method import Bidirectional, ServerStreaming, Unary
from services.wire import actor_pb2, attend_pb2, lab_pb2

PROTOCOL_VERSION = 1  # Hello.protocol_version: raised with every change that an older peer would misread

ATTEND = Bidirectional("pmulab.v1.Attend", "Attend", attend_pb2.Burst, attend_pb2.Turn)

STATE = Unary("pmulab.v1.Actor", "State", actor_pb2.StateRequest, actor_pb2.StateReply)

DESCRIBE = Unary("pmulab.v1.Lab", "Describe", lab_pb2.DescribeRequest, lab_pb2.Description)
INJECT = Unary("pmulab.v1.Lab", "Inject", lab_pb2.InjectRequest, lab_pb2.Injected)
RESULT = Unary("pmulab.v1.Lab", "Result", lab_pb2.ResultRequest, lab_pb2.ResultReply)
WATCH = ServerStreaming("pmulab.v1.Lab", "Watch", lab_pb2.WatchRequest, lab_pb2.Progress)
LOG = Unary("pmulab.v1.Lab", "Log", lab_pb2.LogRequest, lab_pb2.InjectionLog)
SHUTDOWN = Unary("pmulab.v1.Lab", "Shutdown", lab_pb2.ShutdownRequest, lab_pb2.ShutdownReply)
