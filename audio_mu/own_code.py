"""Code of the user's own, outside the package, named as `place:name`: a Python file or an importable module."""

from __future__ import annotations

import importlib
import importlib.util
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from audio_mu.errors import UserError, memory_ended, named
from audio_mu.system.hashing import file_sha256, sha256

LOADED_AS = "__audio_mu_digest__"


@contextmanager
def own_code(words: Callable[[str], str]) -> Iterator[None]:
    """Run code of the user's own: whatever it raises is the user's to mend, told by `words` of the error in one line.

    What ends a program, `exit()` among it, is an error too; Ctrl-C is none, and the end of memory stays what it is.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:
        if memory_ended(error):
            raise
        raise UserError(words(named(error))) from error


def is_reference(text: str) -> bool:
    """Whether a text names own code, such as `/path/to/file.py:name` or `module.path:name`."""
    return ":" in text


def is_own(text: str) -> bool:
    """Whether a text names code outside the package: its pretrained encoders are references too."""
    return is_reference(text) and not text.startswith("audio_mu.")


def name_of(reference: str) -> str:
    """The name in a reference, behind its last colon; a text without colon is its own name."""
    return reference.rpartition(":")[2]


def digest_of(reference: str) -> str:
    """SHA-256 of the file that holds the code, without the files that it imports.

    Raises `UserError` where the reference names no file or module.
    """
    return file_sha256(_file(reference))


def load(reference: str) -> Any:
    """The object of a reference. Its file is run once in a process, and again after it was edited.

    Raises `UserError` where there is no such file, module or name, or where the file fails.
    """
    place, _, name = reference.rpartition(":")
    module = _module(place, digest_of(reference), reference)
    with own_code(lambda about: f"{reference!r}: {place} gives no {name!r} ({about}): mend it"):
        if not hasattr(module, name):
            raise UserError(f"{reference!r}: {place} defines no {name!r}: name a function or class of it")
        return getattr(module, name)


def unload(reference: str) -> None:
    """Have the file or module of a reference run again when it is loaded next."""
    sys.modules.pop(_name_of_module(reference), None)


def _name_of_module(reference: str) -> str:
    place = reference.rpartition(":")[0]
    return f"audio_mu_own_{sha256(str(Path(place).expanduser().absolute()))[:12]}" if _is_file(place) else place


def _is_file(place: str) -> bool:
    return place.endswith(".py") or "/" in place


def _file(reference: str) -> Path:
    place, _, name = reference.rpartition(":")
    if not place or not name.isidentifier():
        raise UserError(f"{reference!r} is no reference: give /path/to/file.py:name or module.path:name")
    if _is_file(place):
        path = Path(place).expanduser().absolute()
        if not path.is_file():
            raise UserError(f"{reference!r}: {str(path)!r} is not a file: give an existing Python file")
        return path
    try:
        found = importlib.util.find_spec(place)
    except (ImportError, ValueError):
        found = None
    if found is None or found.origin is None or not Path(found.origin).is_file():
        raise UserError(f"{reference!r}: no module {place!r} can be imported: give its file, /path/to/file.py:{name}")
    return Path(found.origin)


def _module(place: str, digest: str, reference: str) -> ModuleType:
    name = _name_of_module(reference)
    module = sys.modules.get(name)
    if module is not None and getattr(module, LOADED_AS, digest) == digest:
        return module
    beside = str(Path(place).expanduser().absolute().parent) if _is_file(place) else "ITS_FOLDER"

    def words(about: str) -> str:
        way = f"mend {place}"
        if about.startswith("ModuleNotFoundError"):
            way += (
                f", install the module, or put PYTHONPATH={shlex.quote(beside)} before this and every later command "
                "where it is a file of yours, whose edits no command notices"
            )
        return f"{reference!r} cannot be loaded ({about}): {way}"

    with own_code(words):
        if _is_file(place):
            module = _run_file(name, _file(reference))
        else:
            module = importlib.import_module(name) if module is None else importlib.reload(module)
    setattr(module, LOADED_AS, digest)
    return module


def _run_file(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # a .py file has both
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses of the file look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
