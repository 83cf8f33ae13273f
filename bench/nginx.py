"""nginx on loopback over a folder of files, at once and with a latency."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

DELAYED_MS = 20
CONFIG = """
daemon off; worker_processes 1; user root; pid HOME/pid; error_log HOME/errors;
load_module modules/ngx_http_echo_module.so;
events { worker_connections 4096; }
http {
  log_format seconds $request_time; access_log HOME/log seconds; sendfile on;
  keepalive_requests 1000000; client_body_temp_path HOME/1; proxy_temp_path HOME/2;
  fastcgi_temp_path HOME/3; uwsgi_temp_path HOME/4; scgi_temp_path HOME/5;
  server {
    listen 127.0.0.1:PORT;
    location /at-once/ { alias FILES/; }
    location /delayed/ { echo_sleep 0.020; echo_exec /answer$uri; }
    location /answer/delayed/ { internal; alias FILES/; }
  }
}
"""
"""A timer of Debian's module ``echo`` holds a request back, and no other one meanwhile."""


class Server(NamedTuple):
    """A running nginx: its address, and its log with the seconds of each request."""

    endpoint: str
    log: Path

    def take_seconds(self) -> list[float]:
        """Return how long each request took that was answered since the last call."""
        time.sleep(0.05)  # the line comes after the answer
        seconds = list(map(float, self.log.read_text(encoding="utf-8").split()))
        os.truncate(self.log, 0)
        return seconds


@contextmanager
def serve_files(folder: Path, home: Path) -> Iterator[Server]:
    """Serve a folder below ``/at-once/`` and ``/delayed/``; ``home`` is for nginx's own files.

    Raises:
        SystemExit: If nginx or its module is not installed.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    config = CONFIG.replace("HOME", str(home)).replace("FILES", str(folder)).replace("PORT", port)
    (home / "conf").write_text(config, encoding="utf-8")
    words = ["env", f"PATH={os.environ['PATH']}:/usr/sbin", "nginx", "-c", str(home / "conf")]
    with (
        subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process,
        socket.socket() as s,
    ):
        try:
            while s.connect_ex(("127.0.0.1", int(port))):
                if process.poll() is not None:
                    said = process.communicate()[1].strip()
                    raise SystemExit(f"{said}\n  Install it: apt-get install nginx-light")
                time.sleep(0.01)
            yield Server(f"http://127.0.0.1:{port}", home / "log")
        finally:
            process.terminate()
