"""A model server as far as the supervisor can tell: /health, ends when its input closes.

python fake_server.py PORT [die-at-once | deaf | never-ready]
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if "never-ready" in sys.argv else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


def end_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    if "die-at-once" in sys.argv:
        sys.stderr.write("loading weights\nthe weights are mouldy\n")
        raise SystemExit(3)
    if "deaf" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=end_with_input, daemon=True).start()
    HTTPServer(("127.0.0.1", int(sys.argv[1])), Health).serve_forever()
