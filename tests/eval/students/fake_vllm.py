"""A quick server in vLLM's place: it takes vLLM's arguments, starts an "engine", lists its name, and answers.

    python fake_vllm.py MODE --model FOLDER --port PORT --served-model-name NAME ...

``well``; ``dies``: with a traceback while it starts; ``silent``: it never listens; ``crashes``: it ends at the first
question; ``other``: it serves another name; ``taken``: as if the port were taken, the first time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

MODE = sys.argv[1]
ARGUMENTS = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=False))
NAME = "other" if MODE == "other" else ARGUMENTS["--served-model-name"]


class Handler(BaseHTTPRequestHandler):
    """The two paths that are asked for."""

    def do_GET(self) -> None:
        """The list of models."""
        self.reply({"object": "list", "data": [{"id": NAME, "object": "model"}]})

    def do_POST(self) -> None:
        """An answer that names the model asked for, and whether a key came along."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if MODE == "crashes":
            print("RuntimeError: the engine is gone", flush=True)
            os._exit(3)
        said = f"{body['model'] == NAME} {self.headers.get('Authorization')}"
        message = {"role": "assistant", "content": said}
        self.reply({"choices": [{"index": 0, "finish_reason": "stop", "message": message}], "usage": {}})

    def reply(self, body: dict[str, Any]) -> None:
        """Send JSON."""
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


if __name__ == "__main__":
    folder = Path(ARGUMENTS["--model"])
    engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    with (folder / "pids.txt").open("a") as pids:
        pids.write(f"{os.getpid()}\n{engine.pid}\n")
    if MODE == "dies":
        print(
            "(EngineCore pid=7) ERROR 11-25 19:34:54 [core.py:12] ValueError: weights of another shape\nmore",
            flush=True,
        )
        print("RuntimeError: Engine core initialization failed.", flush=True)
        sys.exit(1)
    if MODE == "taken" and not (folder / "once").exists():
        (folder / "once").touch()
        print("OSError: [Errno 98] Address already in use", flush=True)
        sys.exit(1)
    if MODE == "silent":
        time.sleep(600)
    HTTPServer(("127.0.0.1", int(ARGUMENTS["--port"])), Handler).serve_forever()
