"""Calls of grpcio, whose results are printed: grpc_client.py PORT fine|failing|leaving|becomes STATE"""

import json
import sys

import grpc

port, what, *more = sys.argv[1:]
channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_retries", 0)])
large = bytes(at & 255 for at in range(1 << 20))


def call(kind, method):
    return getattr(channel, kind)(f"/shop.Shop/{method}")


def failure(make):
    """The code and the details of a call that fails, and the messages before."""
    messages = []
    try:
        answer = make()
        messages.extend(answer if hasattr(answer, "__iter__") and not isinstance(answer, bytes) else [answer])
    except grpc.RpcError as error:
        return [error.code().name, error.details(), len(messages)]
    return ["OK", "", len(messages)]


def fine():
    answer, made = call("unary_unary", "Unary").with_call(large, timeout=20)
    many = list(call("unary_stream", "Many")(b"50", timeout=20))
    return {
        "unary": answer == large,
        "trailing metadata": dict(made.trailing_metadata())["x-size"],
        "empty": call("unary_unary", "Unary")(b"", timeout=20) == b"",
        "many": many == [str(at).encode() * 1000 for at in range(50)],
        "joins": call("stream_unary", "Joins")(iter([b"a", b"b", large]), timeout=20) == b"ab" + large,
        "echoes": list(call("stream_stream", "Echoes")(iter([b"a", large, b"c"]), timeout=20)) == [b"a", large, b"c"],
    }


def failing():
    codes = ["INTERNAL", "UNAVAILABLE", "DATA_LOSS", "NOT_FOUND", "INVALID_ARGUMENT", "UNAUTHENTICATED"]
    fails, late = call("unary_unary", "Fails"), call("unary_stream", "FailsLate")
    found = {code: failure(lambda: fails(code.encode(), timeout=20)) for code in codes}
    found["late"] = failure(lambda: late(b"INTERNAL", timeout=20))
    found["no such method"] = failure(lambda: call("unary_unary", "Nothing")(b"", timeout=20))[:1]
    return found


def leaving():
    hangs = call("unary_unary", "Hangs")
    cancelled = hangs.future(b"")
    # The second call begins when the first one has left.
    deadline = failure(lambda: hangs(b"", timeout=1))[:1]
    cancelled.cancel()
    return {"deadline": deadline, "cancelled": cancelled.cancelled()}


def becomes():
    call("unary_unary", "Becomes")(more[0].encode(), timeout=20)
    return {}


print(json.dumps(globals()[what]()))
