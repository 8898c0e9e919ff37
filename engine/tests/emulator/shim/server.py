"""The front door: which service is meant, which protocol it speaks, and who answers, the shim or moto."""

import gzip
import io
import json
import re
import traceback

import cbor2

from . import autoscaling, cloudformation, cloudwatch, ecs, elbv2, wire
from .common import LOCK, ApiError, reset_ids, uuid

SCOPE = re.compile(r"Credential=[^/]+/[^/]+/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")
CBOR_PATH = re.compile(r"^/service/GraniteServiceVersion20100801/operation/(\w+)$")
STATUS = {200: "200 OK", 400: "400 Bad Request", 404: "404 Not Found", 500: "500 Internal Server Error"}

SCRIPTS = {
    "/shim/ecs": ecs.script,
    "/shim/ecs/crash": ecs.crash,
    "/shim/ecs/kill": ecs.kill,
    "/shim/ecs/push": ecs.push,
    "/shim/autoscaling": autoscaling.script,
    "/shim/cloudwatch": cloudwatch.script,
    "/shim/cloudformation": cloudformation.script,
}


def reset():
    ecs.reset()
    autoscaling.reset()
    cloudwatch.reset()
    cloudformation.reset()
    reset_ids()


class Application:
    """A WSGI application in front of moto's."""

    def __init__(self, moto):
        self.moto = moto
        elbv2.install()
        reset()

    def __call__(self, environ, start_response):
        # Read before the lock is taken, so that a slow client holds up nobody.
        raw = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(raw)
        body = gzip.decompress(raw) if environ.get("HTTP_CONTENT_ENCODING") == "gzip" else raw
        path = environ.get("PATH_INFO", "")
        with LOCK:
            if path.startswith("/shim/"):
                return respond(start_response, *script(path, body))
            if path == "/moto-api/reset":
                reset()
            scope = SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
            handler = scope and SERVICES.get(scope["service"])
            if handler:
                return respond(start_response, *guarded(handler, scope["region"], environ, body))
            return self.moto(environ, start_response)


def guarded(handler, region, environ, body):
    """A fault of the shim is an answer too, and its trace is on standard error."""
    try:
        return handler(region, environ, body)
    except Exception:
        traceback.print_exc()
        return 500, "text/plain", b"the emulator failed: see its standard error"


def respond(start_response, status, kind, body, headers=()):
    head = [("Content-Type", kind), ("Content-Length", str(len(body))), ("x-amzn-RequestId", uuid()), *headers]
    start_response(STATUS.get(status, f"{status} Error"), head)
    return [body]


def script(path, body):
    request = json.loads(body or b"{}")
    try:
        answer, status = SCRIPTS[path](request.pop("region", "us-east-1"), request), 200
    except KeyError as error:
        answer, status = {"error": f"unknown or missing: {error}"}, 404
    except ApiError as error:
        answer, status = {"error": error.message, "code": error.code}, error.status
    return status, "application/json", json.dumps(answer).encode()


def serve_json(module):
    """AWS JSON: the operation is in X-Amz-Target, times are seconds."""

    def handler(region, environ, body):
        operation = environ.get("HTTP_X_AMZ_TARGET", "").rsplit(".", 1)[-1]
        try:
            answer, status = module.handle(region, operation, json.loads(body or b"{}")), 200
        except ApiError as error:
            answer, status = {"__type": error.code, "message": error.message}, error.status
        return status, "application/x-amz-json-1.1", json.dumps(answer).encode()

    return handler


def serve_query(module):
    def handler(region, environ, body):
        request = wire.parse_form(body or environ.get("QUERY_STRING", "").encode())
        action = request.pop("Action", "")
        try:
            return 200, "text/xml", wire.answer(action, module.handle(region, action, request))
        except ApiError as error:
            return error.status, "text/xml", wire.error(error.code, error.message)

    return handler


def cbor_times(value):
    """CBOR has a tag for times. cbor2 would write whole numbers for some floats, clients expect doubles."""
    if isinstance(value, cloudwatch.At):
        return cbor2.CBORTag(1, float(value))
    if isinstance(value, dict):
        return {key: cbor_times(item) for key, item in value.items()}
    if isinstance(value, list):
        return [cbor_times(item) for item in value]
    return value


def serve_cloudwatch(region, environ, body):
    """rpc-v2-cbor, the only protocol that new clients speak; JSON for the others."""
    match = CBOR_PATH.match(environ.get("PATH_INFO", ""))
    if not match:
        return serve_json(cloudwatch)(region, environ, body)
    headers = [("smithy-protocol", "rpc-v2-cbor")]
    try:
        request = cbor2.loads(body) if body else {}
        answer, status = cbor_times(cloudwatch.handle(region, match[1], request)), 200
    except ApiError as error:
        answer, status = {"__type": f"com.amazonaws.cloudwatch#{error.code}", "message": error.message}, error.status
        headers.append(("x-amzn-query-error", f"{error.code};Sender"))
    return status, "application/cbor", cbor2.dumps(answer), headers


SERVICES = {
    "ecs": serve_json(ecs),
    "application-autoscaling": serve_json(autoscaling),
    "cloudformation": serve_query(cloudformation),
    "monitoring": serve_cloudwatch,
}
