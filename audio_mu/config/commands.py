"""Commands as they are printed: started as this one was, with what its user gave of the parameters that they read."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from audio_mu.config.parameters import PARAMETERS, REPAIR_FIELDS, Config, parse
from audio_mu.config.reads import OF_BASES, READS
from audio_mu.errors import UserError

ENTRY = "{entry point}"
ONCE = ("request", "confirm", "force")
"""Parameters that are meant for the one command that they were given to."""
DATA = ("dataset", "dataset_name", "data_dir", "labels")


@dataclass(frozen=True)
class Call:
    """How a command was started: its words with `ENTRY` for the entry point, and the parameters that were given.

    is_project: the parameters are those of `mlflow run`, `-P name=value`, else `--name value`. variables: name → value
    of environment variables that choose another store or experiment than the next command would find by itself.
    """

    words: tuple[str, ...] = ("mlflow", "run", ".", "-e", ENTRY)
    is_project: bool = True
    given: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)

    def line(self, entry_point: str, values: Mapping[str, str]) -> str:
        """The command of an entry point with these parameters, to be pasted into a shell."""
        words = [word.replace(ENTRY, entry_point) for word in self.words]
        for name, value in values.items():
            words += ["-P", f"{name}={value}"] if self.is_project else [f"--{name}", value]
        return " ".join(
            [*(f"{name}={shlex.quote(value)}" for name, value in self.variables.items()), shlex.join(words)]
        )


_call: ContextVar[Call] = ContextVar("call")
"""Of this process, as its command line is: messages deep inside need no parameter for it."""


def remember(call: Call) -> None:
    """Have all commands printed as this one was started."""
    _call.set(call)


def own_words(entry_point: str) -> tuple[str, ...]:
    """The words that have started this process, without parameters: a module's, or the console script's."""
    head = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    if head[-1:] == [f"entrypoints.{entry_point}"]:
        return (*head[:-1], f"entrypoints.{ENTRY}")
    if head[-2:] == ["-m", "audio_mu"]:
        return (*head, ENTRY)
    script = sys.argv[0]
    if Path(script).stem == "audio-mu":
        found = shutil.which("audio-mu")
        return ("audio-mu" if found and Path(found) == Path(script).absolute() else script, ENTRY)
    return (sys.executable, "-m", "audio_mu", ENTRY)


def command(entry_point: str, given: Mapping[str, str] | None = None, **values: str) -> str:
    """The command of an entry point, to be pasted: with these values, and what was given of what it reads.

    given: parameters in place of those that this command was given.
    """
    call = _call.get(Call())
    source = call.given if given is None else given
    carried = {name: source[name] for name in READS[entry_point] if name in source and name not in ONCE}
    kept = {name: text for name, text in carried.items() if not _is_default(name, text)}
    return call.line(entry_point, kept | values)


def erasing(request: str, label: str, confirm: bool) -> str:
    """The command that lists or removes what an answered request of the data set `label` has left.

    The data's parameters are those of this command where it is about the same data set.
    """
    given = _call.get(Call()).given
    own = given.get("dataset_name") or given.get("dataset") or PARAMETERS["dataset"].text
    values = {"request": request, **({"confirm": "true"} if confirm else {})}
    return command("erase", {name: given[name] for name in DATA if name in given and own == label}, **values)


def again(stage: str, params: Mapping[str, str], repair: Mapping[str, str], **values: str) -> str:
    """The command of a stage that does the work of one of its runs again, by the parameters that the run has logged.

    repair: the repair settings that were given; a run logs the rates that its method has trained with.
    """
    logged = {name: text for name, text in params.items() if name in PARAMETERS and name not in REPAIR_FIELDS}
    given = logged | dict(repair)
    kept = {name: text for name, text in _call.get(Call()).given.items() if name not in (*OF_BASES, *given)}
    machine = {name: text for name, text in kept.items() if PARAMETERS[name].group == "machine" or name == "ledger"}
    return command(stage, _needed({**machine, **given}, values), **_needed(values, given))


def _needed(values: Mapping[str, str], beside: Mapping[str, str]) -> dict[str, str]:
    """Those without which other values would be in force, in the presence of the others and of those `beside` them."""
    kept, meant = dict(values), _in_force({**beside, **values})
    for name in values if meant is not None else ():
        if meant == _in_force({**beside, **kept, name: ""}):
            del kept[name]
    return kept


def _in_force(values: Mapping[str, str]) -> dict[str, str] | None:
    """What parameters mean; None where they contradict each other, or name files that have gone."""
    try:
        return Config.from_text({name: text for name, text in values.items() if text}).as_text()
    except UserError:
        return None


def _is_default(name: str, text: str) -> bool:
    return text == PARAMETERS[name].text or parse(name, text) == PARAMETERS[name].default
