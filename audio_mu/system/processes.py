"""Telling a live process from a dead one whose number has been given to another, also after a restart."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

PROC = Path("/proc")
DEAD = "ZX"  # states of what has ended, though its parent has not asked for its exit code
_MARK = re.compile(r"\.(\d+)-(\d*-\w*-\w*-\d*)(\.tmp)?$")


def since(pid: int) -> str:
    """When and where a live process started, '' where there is none or the system does not tell.

    `ticks-machine-boot-namespace`: the start in clock ticks since the machine's start, the first eight characters of
    the machine's and of the start's id, and the namespace that the number `pid` belongs to (containers have their own).
    """
    try:
        state, *rest = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in DEAD else "-".join([rest[18], *_place()])


def is_gone(pid: int, started: str) -> bool:
    """Whether the process `pid` of this host, for which `since` said `started`, is certainly no more.

    False where that cannot be known: in another container, or on another machine of the same name.
    """
    if not started or not PROC.is_dir():
        return _no_such_process(pid)
    own_machine, own_boot, own_namespace = _place()
    try:
        _, machine, boot, namespace = started.split("-")
    except ValueError:  # no word of ours
        return False
    if (machine, boot) == (own_machine, own_boot):
        return namespace == own_namespace and since(pid) != started
    return bool(machine) and machine == own_machine  # started before this machine's last start


def users_of(file: Path, variable: str = "") -> list[tuple[float, str]]:
    """(start, value of an environment variable) of the other processes that have a file open.

    The start is in seconds since 1970. This process and its ancestors are left out, and so is what the system hides;
    where it tells nothing at all, there is one of unknown age.
    """
    if not PROC.is_dir():
        return [(0.0, "")]
    target, found = str(file.resolve()), []
    now, up = time.time(), float((PROC / "uptime").read_text().split()[0])
    own = _ancestry()
    for folder in PROC.glob("[0-9]*"):
        try:
            if int(folder.name) in own or not any(os.readlink(fd) == target for fd in (folder / "fd").iterdir()):
                continue
            values = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # ended in between, or another user's
            continue
        ticks = int(since(int(folder.name)).partition("-")[0] or 0)
        given = dict(value.partition("=")[::2] for value in values).get(variable, "")
        found.append((now - up + ticks / os.sysconf("SC_CLK_TCK"), given))
    return found


def _ancestry() -> set[int]:
    """This process's number, its parent's, and so on."""
    own, pid = set(), os.getpid()
    while pid > 0:
        own.add(pid)
        pid = int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    return own


def own_mark() -> str:
    """What the names of this process's temporary files carry."""
    return f"{os.getpid()}-{since(os.getpid()) or '---'}"


def left_behind(name: str) -> bool:
    """Whether a name carries the mark of a process that is gone."""
    found = _MARK.search(name)
    return found is not None and is_gone(int(found[1]), found[2].strip("-") and found[2])


@cache
def _place() -> tuple[str, str, str]:
    """The machine, its start, and the namespace of process numbers; '' for what is not told."""
    try:
        namespace = "".join(filter(str.isdigit, os.readlink(PROC / "self/ns/pid")))
    except OSError:
        namespace = ""
    return _first(Path("/etc/machine-id")), _first(PROC / "sys/kernel/random/boot_id"), namespace


def _first(path: Path) -> str:
    try:
        return path.read_text().strip()[:8]
    except OSError:
        return ""


def _no_such_process(pid: int) -> bool:
    if os.name != "posix":  # a signal would end it there
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def when_orphaned(parent: int, act: Callable[[], object]) -> None:
    """Call `act`, from a thread of its own, when this process has another parent than `parent`."""
    _when(lambda: os.getppid() != parent, act)


def when_gone(pid: int, started: str, act: Callable[[], object]) -> None:
    """Call `act`, from a thread of its own, when the process of which `since` said `started` is no more."""
    _when(lambda: is_gone(pid, started), act)


def _when(condition: Callable[[], bool], act: Callable[[], object]) -> None:
    def watch() -> None:
        while not condition():
            time.sleep(0.5)
        act()

    threading.Thread(target=watch, daemon=True).start()
