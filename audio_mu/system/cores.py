"""The cores that this process may use, by machine, affinity and its container's quota; what they can compute."""

from __future__ import annotations

import os
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores_at_hand() -> int:
    """Whole cores, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


def multiplies_bf16(cpu_info: Path = CPU_INFO) -> bool:
    """Whether the processor has matrix units for bf16, as far as Linux tells of it."""
    try:
        return "amx_bf16" in cpu_info.read_text().split()
    except OSError:
        return False


def cpu_quota(groups: Path = GROUPS, own: Path = OWN_GROUPS) -> float | None:
    """The smallest CPU quota, in cores, of this process's control groups and of those above them; None without one.

    Of both versions of control groups. A container sees its own group as the root.
    """
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return None
    found = [groups]
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers in ("", "cpu", "cpu,cpuacct", "cpuacct,cpu"):
            top = groups / controllers
            below = Path(path.strip("/"))
            found += [top, *(top / part for part in (below, *below.parents))]
    quotas = [quota for folder in dict.fromkeys(found) if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def _quota(folder: Path) -> float | None:
    """The quota of one group: `cpu.max` of version 2, or two files of version 1, in which -1 is none."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no such group, or `max`
        return None
