"""Where a result comes from: versions, revision, machine, command."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import subprocess
import sys
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
PACKAGES = (
    *("ckshard", "torch", "torchvision", "nvidia-dali-cuda120"),
    *("opencv-python-headless", "halide", "numpy", "webdataset"),
)


def package_versions() -> dict[str, str | None]:
    """Return the versions of Python and of what a result depends on; None if not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def git_revision() -> str | None:
    """Return the commit of the source folder, ``-dirty`` if files differ; None if it has none."""
    describe = "describe --always --dirty --abbrev=40 --exclude *"  # no tag, always the hash
    command = ["git", "-C", str(Path(__file__).parent), *describe.split()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def command_line() -> str:
    """Return the command as it was typed; that of a module begins with ``python -m``."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    name = Path(sys.argv[0]).name
    if module:
        name = f"python -m {module.name.removesuffix('.__main__')}"
    return " ".join([name, *sys.argv[1:]])


def shared_command_line() -> str:
    """Return the command for a record that is passed on: of this machine's paths the last name."""
    return re.sub(r"(?<![^\s=])/(?:[^\s/]+/)*", "", command_line())


def processor_name() -> str:
    """Return the name of this machine's processor."""
    if CPU_INFO.is_file():
        for line in CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
