"""A small server of objects on loopback: ranges, puts, S3's paths, and faults on demand."""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import socket
import struct
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

Fault = str
"""``503``, ``400-ExpiredToken``, ``reset``, ``cut``, ``short``, ``lie``, ``corrupt``, ``whole``,
``elsewhere`` (the range's place is another), ``hang`` (until the server ends)."""


class ObjectServer(http.server.ThreadingHTTPServer):
    """Objects of a folder under ``/bucket/``; every request is counted by method and name."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.delay_s = folder, 0.0
        self.requests: Counter[tuple[str, str]] = Counter()
        self.ranges: list[tuple[str, int, int]] = []
        self.headers: list[str] = []
        self.faults: deque[tuple[str, Fault]] = deque()
        self.always: dict[str, Fault] = {}
        self.has_md5 = True
        self.keeps: Callable[[bytes], bytes] = bytes
        self.is_hanging, self.is_ending = threading.Event(), threading.Event()
        self.on_put: Callable[[str], None] = lambda name: None

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed or stopped is none of the server's faults."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def fault_of(self, name: str) -> Fault:
        """The fault that a request for an object meets: the next in line for it, or a lasting."""
        fault = self._next_fault(name)
        if fault == "hang":
            self.is_hanging.set()
            self.is_ending.wait()
        return fault

    def _next_fault(self, name: str) -> Fault:
        for number, (own, fault) in enumerate(self.faults):
            if name.endswith(own):
                del self.faults[number]
                return fault
        return next((fault for own, fault in self.always.items() if name.endswith(own)), "")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else head and body of an answer lie 40 ms apart
    server: ObjectServer

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def path_of(self) -> Path:
        name = unquote(self.path.partition("?")[0]).lstrip("/")
        self.server.requests[self.command, name.rpartition("/")[2]] += 1
        self.server.headers.append(str(self.headers))
        assert ".." not in name
        return self.server.folder / name

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, server = self.path_of(), self.server
        time.sleep(server.delay_s)
        fault = server.fault_of(path.name)
        if fault[:1].isdigit():
            code = fault.partition("-")[2]
            return self.answer(int(fault[:3]), f"<Error><Code>{code}</Code></Error>".encode())
        if fault == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            return self.connection.close()
        if not path.is_file():
            return self.answer(404)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            begin, end = (int(match[1]), int(match[2]) + 1) if match else (0, size)
            if begin >= size:
                return self.answer(416)
            begin, end = (begin - 512, end - 512) if fault == "lie" and match else (begin, end)
            file.seek(begin)
            body = file.read(end - begin)
        tag = f'"{size}-{path.stat().st_mtime_ns}"'
        if self.command == "HEAD" and server.has_md5:
            tag = f'"{hashlib.md5(body).hexdigest()}"'
        facts = {"ETag": tag, "Last_Modified": "Thu, 26 Nov 2026 00:00:00 GMT"}
        if fault == "short":
            body = body[: len(body) // 2]
        if fault == "corrupt":
            body = bytes([body[0] ^ 1]) + body[1:]
        if match is None or fault == "whole":
            return self.answer(200, body, **facts)
        begin = int(match[1])
        end = begin + len(body) if fault != "short" else int(match[2]) + 1
        server.ranges.append((path.name, begin, end))
        begin, end = (begin + 512, end + 512) if fault == "elsewhere" else (begin, end)
        facts["Content_Range"] = f"bytes {begin}-{end - 1}/{size}"
        if fault == "cut":
            self.close_connection = True
            facts["Content_Length"] = str(len(body))
            body = body[: len(body) // 2]
        return self.answer(206, body, **facts)

    def do_PUT(self) -> None:
        path = self.path_of()
        data = self.rfile.read(int(self.headers["Content-Length"]))
        fault = self.server.fault_of(path.name)
        if fault[:1].isdigit():
            return self.answer(int(fault[:3]))
        if self.headers.get("If-None-Match") == "*" and path.exists():
            return self.answer(412)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.server.keeps(data))
        self.server.on_put(path.name)
        return self.answer(200, ETag=f'"{len(data)}"')


@contextmanager
def serving(folder: Path) -> Iterator[ObjectServer]:
    """Serve a folder until the block ends."""
    with ObjectServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.is_ending.set()
            server.shutdown()
            thread.join()
