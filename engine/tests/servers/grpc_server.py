"""A server of grpcio, with its health service: grpc_server.py PORT"""

import sys
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

STATES = health_pb2.HealthCheckResponse
states = health.HealthServicer()


def unary(request, context):
    context.set_trailing_metadata((("x-size", str(len(request))),))
    return request


def fails(request, context):
    context.abort(grpc.StatusCode[request.decode()], "on purpose")


def fails_late(request, context):
    yield b"one message"
    context.abort(grpc.StatusCode[request.decode()], "on purpose")


def hangs(request, context):
    time.sleep(30)
    return b""


def many(request, context):
    for at in range(int(request)):
        yield str(at).encode() * 1000


def joins(requests, context):
    return b"".join(requests)


def echoes(requests, context):
    yield from requests


def becomes(request, context):
    """The state that the server's health has from now on."""
    for service in ("", "shop.Shop"):
        states.set(service, STATES.ServingStatus.Value(request.decode()))
    return b""


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Fails": grpc.unary_unary_rpc_method_handler(fails),
    "FailsLate": grpc.unary_stream_rpc_method_handler(fails_late),
    "Hangs": grpc.unary_unary_rpc_method_handler(hangs),
    "Many": grpc.unary_stream_rpc_method_handler(many),
    "Joins": grpc.stream_unary_rpc_method_handler(joins),
    "Echoes": grpc.stream_stream_rpc_method_handler(echoes),
    "Becomes": grpc.unary_unary_rpc_method_handler(becomes),
}

server = grpc.server(futures.ThreadPoolExecutor(16))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Shop", METHODS),))
health_pb2_grpc.add_HealthServicer_to_server(states, server)
becomes(b"SERVING", None)
if server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}") == 0:
    sys.exit("the port is taken")
server.start()
server.wait_for_termination()
