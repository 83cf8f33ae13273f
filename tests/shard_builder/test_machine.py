"""How many cores this process may use: its affinity, and what its control groups grant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.reading import Reading
from shard_builder import machine
from shard_builder.machine import UNLIMITED, num_usable_cores, num_workers

V2 = {"a/cpu.max": "max 100000", "a/job/cpu.max": "250000 100000"}
V1 = {"a/job/cpu.cfs_quota_us": "50000", "a/job/cpu.cfs_period_us": "100000"}


@pytest.mark.parametrize(
    ("group", "mount", "files", "granted"),
    [
        ("0::/a/job", "cgroup2 rw", V2, 2.5),
        ("0::/a/job", "cgroup2 rw", V2 | {"a/cpu.max": "100000 100000"}, 1.0),
        ("0::/", "cgroup2 rw", {"cpu.max": "300000 100000"}, 3.0),
        ("0::/gone/in/the/container", "cgroup2 rw", {"cpu.max": "300000 100000"}, 3.0),
        ("3:cpu,cpuacct:/a/job", "cgroup rw,cpu,cpuacct", V1, 0.5),
        ("3:cpu,cpuacct:/docker/1", "cgroup rw,cpu", {Path(n).name: V1[n] for n in V1}, 0.5),
        ("1:name=systemd:/a/job\n3:cpu:/b", "cgroup rw,cpu", V1, UNLIMITED),
        ("0::/a/job", "cgroup2 rw", {"a/job/cpu.max": "max 100000"}, UNLIMITED),
        ("3:cpu:/a", "cgroup rw,cpu", {"a/cpu.cfs_quota_us": "-1"}, UNLIMITED),
        ("0::/a", "cgroup2 rw", {"a/cpu.max": "damaged"}, UNLIMITED),
    ],
)
def test_the_least_quota_of_a_group_and_those_above_counts(
    group: str, mount: str, files: dict[str, str], granted: float, tmp_path: Path
) -> None:
    place = tmp_path / "fs"
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text + "\n")
    process = tmp_path / "self"
    process.mkdir()
    (process / "cgroup").write_text(group + "\n")
    (process / "mounts").write_text(f"none /proc proc rw 0 0\ncgroup {place} {mount} 0 0\n")
    assert machine._cores_granted(process) == granted


def test_where_nothing_tells_of_groups_all_cores_are_granted(tmp_path: Path) -> None:
    assert machine._cores_granted(tmp_path) == UNLIMITED


@pytest.mark.parametrize(("granted", "expected"), [(0.2, 1), (2.5, 3), (3.0, 3), (UNLIMITED, 8)])
def test_a_quota_bounds_the_cores_wherever_they_are_counted(
    granted: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(machine, "_cores_granted", lambda: granted)
    assert num_usable_cores() == num_workers(0) == Reading().threads == expected
