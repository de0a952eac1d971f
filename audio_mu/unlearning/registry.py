"""The methods by name, with their declarations: sets, requests, hyper-parameters and their ranges."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from audio_mu.config import REPAIR_FIELDS
from audio_mu.errors import UserError, suggest
from audio_mu.names import NAIVE, ORIGINAL, STUDY
from audio_mu.own_code import digest_of, is_reference, load
from audio_mu.unlearning.search import IMPAIRS, Range

REQUESTS = frozenset({"item", "class", "speaker", "list"})
Scrub = Callable[..., nn.Module]


@dataclass(frozen=True)
class Method:
    """A registered method. `hyper_parameters` are the keyword-only arguments of `scrub` with their defaults.

    `raises_forget_loss`: its impair step exists to raise the loss on the forget set. `search`: the values that `tune`
    may try. `needs`: an attribute that the network must have beside its logits. `retrains_only`: it reads the base
    recipe and no repair setting, so that one result serves every cell of a request. `reference` and `digest`: the
    `place:name` of a method outside the package and the hash of its file, else empty.
    """

    name: str
    scrub: Scrub
    reads: frozenset[str]
    requests: frozenset[str]
    hyper_parameters: Mapping[str, Any]
    raises_forget_loss: bool
    search: Mapping[str, Range]
    needs: str = ""
    retrains_only: bool = False
    reference: str = ""
    digest: str = ""

    @property
    def configurable(self) -> tuple[str, ...]:
        """Names that a configuration may set: its hyper-parameters, and the repair settings that it can read.

        A method that does not read the forget set has nothing to impair. A method that does not read the remain set
        has nothing to repair.
        """
        shared = (s for s in REPAIR_FIELDS if ("forget" if s in IMPAIRS else "remain") in self.reads)
        return (*self.hyper_parameters, *(() if self.retrains_only else shared))


METHODS: dict[str, Method] = {}


def method(
    *,
    reads: set[str],
    requests: frozenset[str] | set[str] = REQUESTS,
    raises_forget_loss: bool = False,
    search: Mapping[str, Range] | None = None,
    needs: str = "",
    retrains_only: bool = False,
) -> Callable[[Scrub], Scrub]:
    """Register `scrub(task, *, hyper-parameters) -> network` under its function's name.

    The declarations are those of `Method`; ranges for `search` are made by the functions of
    `audio_mu.unlearning.search`. Raises ValueError for unknown sets or requests, a name that is taken, an argument
    without a default or with the name of a shared setting, and a range for an argument that the method lacks.
    """
    if reads - {"forget", "remain"} or set(requests) - REQUESTS:
        raise ValueError(f"reads={reads} or requests={requests} are not known")

    def register(scrub: Scrub) -> Scrub:
        name = scrub.__name__
        if name in METHODS or name in (ORIGINAL, "study", "all"):
            raise ValueError(f"the method name {name!r} is taken")
        _, *arguments = inspect.signature(scrub).parameters.values()
        if any(a.kind is not a.KEYWORD_ONLY or a.default is a.empty for a in arguments):
            raise ValueError(f"{name}: hyper-parameters must be keyword-only with defaults")
        if shared := sorted({a.name for a in arguments} & set(REPAIR_FIELDS)):
            raise ValueError(f"{name}: {', '.join(shared)} are settings of all methods, read them from task.settings")
        registered = Method(
            name=name,
            scrub=scrub,
            reads=frozenset(reads),
            requests=frozenset(requests),
            hyper_parameters={a.name: a.default for a in arguments},
            raises_forget_loss=raises_forget_loss,
            search=search or {},
            needs=needs,
            retrains_only=retrains_only,
        )
        unknown = sorted(set(registered.search) - set(registered.configurable))
        if unknown:
            raise ValueError(f"{name}: a range for {unknown}, it has {', '.join(registered.configurable)}")
        METHODS[name] = registered
        return scrub

    return register


def own_method(reference: str) -> str:
    """Register the function `place:name` of a file or module outside the package; return the method's name.

    A function without `@method` counts as a method that reads both sets and supports every request. Raises
    `UserError` where the function is not there or cannot be registered.
    """
    place, _, name = reference.rpartition(":")
    digest = digest_of(reference)
    for old in [n for n, m in METHODS.items() if m.reference.startswith(f"{place}:") and m.digest != digest]:
        del METHODS[old]  # the file has been edited since
    function = load(reference)
    if not inspect.isfunction(function):
        raise UserError(f"methods={reference!r}: {name} is no function: name one of the form {name}(task, *, rate=0.1)")
    if all(known.scrub is not function for known in METHODS.values()):
        try:
            method(reads={"forget", "remain"})(function)
        except ValueError as error:
            raise UserError(f"methods={reference!r}: {error}: mend {place}") from None
    for known in [m for m in METHODS.values() if m.scrub.__module__ == function.__module__]:
        METHODS[known.name] = replace(known, reference=f"{place}:{known.name}", digest=digest)
    return function.__name__


def choose(names: Sequence[str], request: str) -> tuple[str, ...]:
    """The methods that a list of names, `study` or `all` stands for, naive first; `original` may be named too.

    A method outside the package is named by its `place:name`, and by its name once it is known. Raises `UserError`
    for an unknown name and for a method that does not support the kind of request.
    """
    chosen: dict[str, None] = {}
    for name in names:
        if name == "study":
            chosen |= dict.fromkeys(STUDY)
        elif name == "all":
            ours = (n for n, m in METHODS.items() if request in m.requests and not m.reference)
            chosen |= dict.fromkeys([*STUDY, *ours])
        elif is_reference(name):
            chosen[own_method(name)] = None
        elif name in METHODS:
            chosen[name] = None
        elif name != ORIGINAL:
            choice = f"choose study, all or {', '.join(METHODS)}"
            raise UserError(f"methods={name!r} is not known: {suggest(name, list(METHODS), choice)}")
    if not names:
        raise UserError(f"methods='' names none: choose study, all or {', '.join(METHODS)}")
    for name in chosen:
        supported = METHODS[name].requests
        if request not in supported:
            raise UserError(
                f"methods={name!r} does not support forget={request!r}, only {', '.join(sorted(supported))}: "
                "leave it out or ask otherwise"
            )
    return tuple(sorted(chosen, key=lambda name: name != NAIVE))
