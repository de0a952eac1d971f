"""The methods by name: what each reads, which requests it supports, its hyper-parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from audio_mu.errors import UserError

REQUESTS = frozenset({"item", "class", "speaker", "list"})
STUDY = (
    "naive", "gradient_ascent", "stochastic_teacher", "omp", "cosine", "pop", "amnesiac", "label_smoothing",
    "fine_tune",
)  # fmt: skip
"""The study's eight in its order, and the fine-tuning that it ran beside them."""

Scrub = Callable[..., nn.Module]


@dataclass(frozen=True)
class Method:
    """A registered method. `hyper_parameters` are the keyword-only arguments of `scrub` with their defaults.

    `raises_forget_loss`: its impair step exists to raise the loss on the forget set.
    """

    name: str
    scrub: Scrub
    reads: frozenset[str]
    requests: frozenset[str]
    hyper_parameters: Mapping[str, Any]
    raises_forget_loss: bool

    @property
    def summary(self) -> str:
        """First line of the method's documentation."""
        return (inspect.getdoc(self.scrub) or "").splitlines()[0]


METHODS: dict[str, Method] = {}


def method(
    *, reads: set[str], requests: frozenset[str] | set[str] = REQUESTS, raises_forget_loss: bool = False
) -> Callable[[Scrub], Scrub]:
    """Register `scrub(task, *, hyper-parameters) -> network` under its function's name.

    Raises ValueError for unknown sets or requests, a name that is taken, or an argument without a default.
    """
    if reads - {"forget", "remain"} or set(requests) - REQUESTS:
        raise ValueError(f"reads={reads} or requests={requests} are not known")

    def register(scrub: Scrub) -> Scrub:
        name = scrub.__name__
        if name in METHODS or name in ("original", "study", "all"):
            raise ValueError(f"the method name {name!r} is taken")
        _, *arguments = inspect.signature(scrub).parameters.values()
        if any(a.kind is not a.KEYWORD_ONLY or a.default is a.empty for a in arguments):
            raise ValueError(f"{name}: hyper-parameters must be keyword-only with defaults")
        METHODS[name] = Method(
            name=name,
            scrub=scrub,
            reads=frozenset(reads),
            requests=frozenset(requests),
            hyper_parameters={a.name: a.default for a in arguments},
            raises_forget_loss=raises_forget_loss,
        )
        return scrub

    return register


def choose(names: Sequence[str], request: str) -> tuple[str, ...]:
    """The methods that a list of names, `study` or `all` stands for, naive first; `original` may be named too.

    Raises `UserError` for an unknown name and for a method that does not support the kind of request.
    """
    chosen: dict[str, None] = {}
    for name in names:
        if name == "study":
            chosen |= dict.fromkeys(STUDY)
        elif name == "all":
            chosen |= dict.fromkeys([*STUDY, *(n for n, m in METHODS.items() if request in m.requests)])
        elif name in METHODS:
            chosen[name] = None
        elif name != "original":
            raise UserError(f"methods={name!r} is not known: choose study, all or {', '.join(METHODS)}")
    if not names:
        raise UserError(f"methods='' names none: choose study, all or {', '.join(METHODS)}")
    for name in chosen:
        supported = METHODS[name].requests
        if request not in supported:
            raise UserError(
                f"methods={name!r} does not support forget={request!r}, only {', '.join(sorted(supported))}: "
                "leave it out or ask otherwise"
            )
    return tuple(sorted(chosen, key=lambda name: name != "naive"))
