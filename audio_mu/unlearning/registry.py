"""The methods by name, with their declarations: sets, requests, hyper-parameters and their ranges."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from audio_mu.config import REPAIR_FIELDS
from audio_mu.errors import UserError, suggest
from audio_mu.names import NAIVE, ORIGINAL, STUDY
from audio_mu.own_code import digest_of, is_reference, load, unload
from audio_mu.seeding import settings_kept
from audio_mu.unlearning.search import IMPAIR_STEP, REPAIR_STEP, Limits, Range

REQUESTS = frozenset({"item", "class", "speaker", "list"})
Scrub = Callable[..., nn.Module]
NO_SHARDS = (
    "retrains shards, and a base model of shards=1 has none: train with shards=4 or so first, or take naive, which "
    "retrains the whole"
)


@dataclass(frozen=True)
class Method:
    """A registered method. `hyper_parameters` are the keyword-only arguments of `scrub` with their defaults.

    `raises_forget_loss`: its impair step exists to raise the loss on the forget set. `settings`: the repair settings
    that it reads. `limits`: the values that its hyper-parameters may have, `search`: those that `tune` tries. `needs`:
    an attribute that the network must have beside its logits. `retrains_only`: it reads the base recipe and no repair
    setting, so that one result serves every cell of a request. `of_shards`: it works on the shards of a base model,
    which must have some. `reference` and `digest`: the `place:name` of a method
    outside the package and the hash of its file, else empty.
    """

    name: str
    scrub: Scrub
    reads: frozenset[str]
    requests: frozenset[str]
    hyper_parameters: Mapping[str, Any]
    raises_forget_loss: bool
    settings: frozenset[str]
    limits: Mapping[str, Limits]
    search: Mapping[str, Range]
    needs: str = ""
    retrains_only: bool = False
    of_shards: bool = False
    reference: str = ""
    digest: str = ""

    @property
    def configurable(self) -> tuple[str, ...]:
        """Names that a configuration may set: its hyper-parameters, and the repair settings that it reads."""
        return (*self.hyper_parameters, *(name for name in REPAIR_FIELDS if name in self.settings))


METHODS: dict[str, Method] = {}


def _hyper_parameters(scrub: Scrub) -> dict[str, Any]:
    """Name → default of the arguments behind the task. Raises ValueError for arguments that are none."""
    _, *arguments = inspect.signature(scrub).parameters.values()
    if any(a.kind is not a.KEYWORD_ONLY or a.default is a.empty for a in arguments):
        raise ValueError(f"{scrub.__name__}: hyper-parameters must be keyword-only with defaults")
    if shared := sorted({a.name for a in arguments} & set(REPAIR_FIELDS)):
        about = "settings of all methods, read them from task.settings"
        raise ValueError(f"{scrub.__name__}: {', '.join(shared)} are {about}")
    return {argument.name: argument.default for argument in arguments}


def _readable(reads: Set[str], retrains_only: bool) -> frozenset[str]:
    """The settings of the steps that a method with these sets can make."""
    steps = {"forget": IMPAIR_STEP, "remain": REPAIR_STEP}
    return frozenset().union(*(steps[name] for name in reads if not retrains_only))


def method(
    *,
    reads: set[str],
    requests: frozenset[str] | set[str] = REQUESTS,
    raises_forget_loss: bool = False,
    settings: Set[str] | None = None,
    limits: Mapping[str, Limits] | None = None,
    search: Mapping[str, Range] | None = None,
    needs: str = "",
    retrains_only: bool = False,
    of_shards: bool = False,
) -> Callable[[Scrub], Scrub]:
    """Register `scrub(task, *, hyper-parameters) -> network` under its function's name.

    The declarations are those of `Method`; limits and ranges are made by `audio_mu.unlearning.search`. Without
    `settings` a method that reads the forget set may read those of the impair step, and one that reads the remain set
    those of the repair step. Raises ValueError for unknown sets, requests or settings, a name that is taken, an
    argument without a default or with the name of a shared setting, and limits or a range for an argument that the
    method lacks.
    """
    if reads - {"forget", "remain"} or set(requests) - REQUESTS or set(settings or ()) - set(REPAIR_FIELDS):
        raise ValueError(f"reads={reads}, requests={requests} or settings={settings} are not known")

    def register(scrub: Scrub) -> Scrub:
        name = scrub.__name__
        if name in METHODS or name in (ORIGINAL, "study", "all"):
            raise ValueError(f"the method name {name!r} is taken")
        registered = Method(
            name=name,
            scrub=scrub,
            reads=frozenset(reads),
            requests=frozenset(requests),
            hyper_parameters=_hyper_parameters(scrub),
            raises_forget_loss=raises_forget_loss,
            settings=_readable(reads, retrains_only) if settings is None else frozenset(settings),
            limits=limits or {},
            search=search or {},
            needs=needs,
            retrains_only=retrains_only,
            of_shards=of_shards,
        )
        unknown = sorted({*registered.search, *registered.limits} - set(registered.configurable))
        if unknown:
            raise ValueError(f"{name}: a range for {unknown}, it has {', '.join(registered.configurable)}")
        METHODS[name] = registered
        return scrub

    return register


@contextmanager
def whole_or_nothing(reference: str) -> Iterator[None]:
    """Code of the user's own that fails while it is read, or is refused, registers nothing and is read again.

    What it sets for all of torch is put back.
    """
    before = dict(METHODS)
    try:
        with settings_kept():
            yield
    except BaseException:
        METHODS.clear()
        METHODS.update(before)
        unload(reference)
        raise


def own_method(reference: str) -> str:
    """Register the function `place:name` of a file or module outside the package; return the method's name.

    A function without `@method` counts as a method that reads both sets and supports every request. Raises
    `UserError` where the function is not there or cannot be registered.
    """
    place, _, name = reference.rpartition(":")
    digest = digest_of(reference)
    for old in [n for n, m in METHODS.items() if m.reference.startswith(f"{place}:") and m.digest != digest]:
        del METHODS[old]  # the file has been edited since
    with whole_or_nothing(reference):
        function = load(reference)
        if not inspect.isfunction(function):
            form = f"name one of the form {name}(task, *, rate=0.1)"
            raise UserError(f"methods={reference!r}: {name} is no function: {form}")
        if all(known.scrub is not function for known in METHODS.values()):
            try:
                method(reads={"forget", "remain"})(function)
            except ValueError as error:
                raise UserError(f"methods={reference!r}: {error}: mend {place}") from None
    for known in [m for m in METHODS.values() if m.scrub.__module__ == function.__module__]:
        METHODS[known.name] = replace(known, reference=f"{place}:{known.name}", digest=digest)
    return function.__name__


def choose(names: Sequence[str], request: str, shards: int = 1) -> tuple[str, ...]:
    """The methods that a list of names, `study` or `all` stands for, naive first; `original` may be named too.

    A method outside the package is named by its `place:name`, and by its name once it is known. Those of shards are
    among `all` where the base models have more than one of the `shards`. Raises `UserError`
    for an unknown name and for a method that does not support the kind of request.
    """
    chosen: dict[str, None] = {}
    for name in names:
        if name == "study":
            chosen |= dict.fromkeys(STUDY)
        elif name == "all":
            ours = (
                name for name, known in METHODS.items()
                if request in known.requests and not known.reference and (shards > 1 or not known.of_shards)
            )  # fmt: skip
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
