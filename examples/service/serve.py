"""A sample service with the standard library only: /, /whoami, /healthz.

    python3 serve.py --version v1 --port 9001 [--error-rate 0.2] [--latency-ms 300]
"""

import argparse
import json
import random
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

options = argparse.ArgumentParser(description=__doc__)
options.add_argument("--version", default="v1")
options.add_argument("--port", type=int, required=True)
options.add_argument("--error-rate", type=float, default=0.0, help="share of 500s, 0-1")
options.add_argument("--latency-ms", type=float, default=0.0, help="added to every answer")
options = options.parse_args()


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/healthz":
            return self.answer(200, "ok\n")
        time.sleep(options.latency_ms / 1000)
        if random.random() < options.error_rate:
            return self.answer(500, "the fault that was asked for\n")
        if self.path == "/whoami":
            return self.answer(200, json.dumps({"version": options.version}) + "\n")
        return self.answer(200, f"hello from {options.version}\n")

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", options.port), Service).serve_forever()
