"""gRPC's own settings, for both ends of a connection."""

from __future__ import annotations

MESSAGE_LIMIT = 16 << 20  # bytes that one message may have; gRPC's own limit is 4 MiB

# Seconds of silence on a connection after which its end asks whether the other is still there, and that it
# waits for the answer. gRPC's threads answer, however busy the process is: only one that is stopped, or a machine that
# is gone, does not. A process that dies is noticed at once, by the end of its connection.
KEEPALIVE = 20.0
KEEPALIVE_ANSWER = 20.0

Options = tuple[tuple[str, int], ...]


def client_options(keepalive: float = KEEPALIVE, answer: float = KEEPALIVE_ANSWER) -> Options:
    return (
        # Channels share subchannels process-wide by default, and with them the back-off of somebody else's failure.
        ("grpc.use_local_subchannel_pool", 1),
        # From 1 s up to 120 s by default; a service beside us is either there or about to be.
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.min_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 500),
        ("grpc.enable_http_proxy", 0),
        *_common(keepalive, answer),
    )


def server_options(keepalive: float = KEEPALIVE, answer: float = KEEPALIVE_ANSWER) -> Options:
    return (
        ("grpc.so_reuseport", 0),  # on by default: a second server would take every other call
        # By default who asks more often than every 5 minutes is sent away with too_many_pings.
        ("grpc.http2.min_ping_interval_without_data_ms", 0),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 0),
        ("grpc.http2.max_ping_strikes", 0),
        *_common(keepalive, answer),
    )


def _common(keepalive: float, answer: float) -> Options:
    return (
        ("grpc.max_receive_message_length", MESSAGE_LIMIT),
        ("grpc.keepalive_time_ms", round(keepalive * 1000)),
        ("grpc.keepalive_timeout_ms", round(answer * 1000)),
        ("grpc.http2.ping_timeout_ms", round(answer * 1000)),  # the larger of the two counts; 60 s by default
        ("grpc.http2.max_pings_without_data", 0),  # as many as it takes; 2 by default
    )
