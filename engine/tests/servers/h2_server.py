"""A server of Python's h2, frame by frame: h2_server.py PORT"""

import json
import socket
import sys
import threading

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded

refused = set()
lock = threading.Lock()


def serve(sock):
    conn = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
    conn.initiate_connection()
    sock.sendall(conn.data_to_send())
    heads, bodies, waiting = {}, {}, {}

    def send(stream):
        """Sends as much of a body as the windows let through."""
        body, trailers = waiting[stream]
        while body:
            size = min(conn.local_flow_control_window(stream), conn.max_outbound_frame_size, len(body))
            if size == 0:
                waiting[stream] = (body, trailers)
                return
            conn.send_data(stream, body[:size], end_stream=len(body) == size and not trailers)
            body = body[size:]
        if trailers:
            conn.send_headers(stream, trailers, end_stream=True)
        del waiting[stream]

    def answer(stream, body, status="200", trailers=None, kind="text/plain"):
        conn.send_headers(stream, [(":status", status), ("content-type", kind)])
        waiting[stream] = (body, trailers)
        send(stream)

    while True:
        data = sock.recv(65536)
        if not data:
            return
        for event in conn.receive_data(data):
            if isinstance(event, RequestReceived):
                heads[event.stream_id], bodies[event.stream_id] = event.headers, b""
            elif isinstance(event, DataReceived):
                bodies[event.stream_id] += event.data
                conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                stream = event.stream_id
                head, body = heads.pop(stream), bodies.pop(stream)
                path = dict(head)[":path"]
                if path == "/head":
                    answer(stream, json.dumps(head).encode())
                elif path == "/echo":
                    answer(stream, body)
                elif path == "/large":
                    answer(stream, bytes(at & 255 for at in range(1 << 20)))
                elif path == "/trailers":
                    answer(stream, b"body", trailers=[("x-sum", "42")])
                elif path == "/resets":
                    conn.send_headers(stream, [(":status", "200")])
                    conn.reset_stream(stream, ErrorCodes.INTERNAL_ERROR)
                elif path.startswith("/refused-once"):
                    with lock:
                        first = path not in refused
                        refused.add(path)
                    if first:
                        conn.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
                    else:
                        answer(stream, body)
                elif path.startswith("/shuts-down-once"):
                    with lock:
                        first = path not in refused
                        refused.add(path)
                    if first:
                        conn.close_connection(last_stream_id=max(stream - 2, 0))
                        sock.sendall(conn.data_to_send())
                        # Closed at once, what was said might be lost.
                        sock.shutdown(socket.SHUT_WR)
                        while sock.recv(65536):
                            pass
                        return
                    answer(stream, body)
                else:
                    answer(stream, b"here")
        for stream in list(waiting):
            send(stream)
        sock.sendall(conn.data_to_send())


def attempt(sock):
    try:
        serve(sock)
    except (OSError, Exception) as error:
        print(error, file=sys.stderr)
    finally:
        sock.close()


with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    while True:
        threading.Thread(target=attempt, args=(listener.accept()[0],), daemon=True).start()
