"""Connections that nobody closes: an ``asyncio.run`` per call is how a notebook asks."""

from __future__ import annotations

import subprocess
import sys

TWO_LOOPS = """
import asyncio, http.server, threading
from steer_verl.config import EndpointConfig
from steer_verl.models.hosts import hosts

class Kept(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"{}")
    def log_message(self, *args): ...

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Kept)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/v1"

async def ask():
    hosts().take_up(object(), EndpointConfig(base_url=url, model="m"))
    print((await hosts().by_url[url].connections.send("GET", "/models", headers={}, connect_timeout=5)).status)

asyncio.run(ask())
asyncio.run(ask())
"""


def test_a_closed_loop_leaves_no_complaint():
    done = subprocess.run([sys.executable, "-c", TWO_LOOPS], capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == (["200", "200"], "")
