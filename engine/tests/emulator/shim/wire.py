"""AWS's query protocol: form fields in, XML out. Lists are always `member` lists, as in CloudFormation."""

from datetime import datetime
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from .common import uuid

NAMESPACE = "http://cloudformation.amazonaws.com/doc/2010-05-15/"


def parse_form(body):
    """`A.member.1.B=x` becomes {"A": [{"B": "x"}]}."""
    root = {}
    for name, value in parse_qsl(body.decode(), keep_blank_values=True):
        node = root
        *path, last = name.split(".")
        for step in path:
            node = node.setdefault(step, {})
        node[last] = value
    return _lists(root)


def _lists(node):
    if not isinstance(node, dict):
        return node
    if set(node) == {"member"}:
        members = node["member"]
        # An empty list is sent as one field without a number.
        if not isinstance(members, dict):
            return []
        return [_lists(members[key]) for key in sorted(members, key=int)]
    return {key: _lists(value) for key, value in node.items()}


def _xml(value):
    if isinstance(value, dict):
        return "".join(
            f"<{key}>{_xml(item)}</{key}>" for key, item in value.items() if item is not None
        )
    if isinstance(value, list):
        return "".join(f"<member>{_xml(item)}</member>" for item in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03}Z"
    return escape(str(value))


def answer(action, result):
    return (
        f'<{action}Response xmlns="{NAMESPACE}"><{action}Result>{_xml(result)}</{action}Result>'
        f"<ResponseMetadata><RequestId>{uuid()}</RequestId></ResponseMetadata></{action}Response>"
    ).encode()


def error(code, message):
    return (
        f'<ErrorResponse xmlns="{NAMESPACE}"><Error><Type>Sender</Type><Code>{escape(code)}</Code>'
        f"<Message>{escape(message)}</Message></Error><RequestId>{uuid()}</RequestId></ErrorResponse>"
    ).encode()
