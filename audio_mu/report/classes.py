"""What the report says of single classes: the worst of each set, and what a removed class is called now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from audio_mu.report.facts import percent

SETS = ("forget", "remain", "test")
ANSWERS = 4  # for each class
CONFUSIONS = 10


@dataclass(frozen=True)
class CalledNow:
    """What the models of a method call the recordings of a class: n over all seeds, answers with their shares."""

    method: str
    label: str
    n: int
    answers: str


@dataclass(frozen=True)
class Confused:
    """A class of the test set that is taken for another: the shares of its recordings, of a method and of naive."""

    label: str
    answer: str
    own: float
    naive: float


@dataclass(frozen=True)
class Classes:
    """worst: method and set → the class that is answered rightly least often, and on how many seeds.

    confused: the most frequent wrong answers of the method `of` on the test set.
    """

    worst: Mapping[tuple[str, str], str]
    called: Sequence[CalledNow] = ()
    confused: Sequence[Confused] = ()
    of: str = ""


NO_CLASSES = Classes({})


def worst_named(tags: Mapping[str, Sequence[Mapping[str, str]]]) -> dict[tuple[str, str], str]:
    """The worst class of most seeds by method and set, from the tags of each method's runs; none where they lack it."""
    found = {}
    for method, runs in tags.items():
        for name in SETS:
            tagged = [own[f"worst_class_{name}"] for own in runs if f"worst_class_{name}" in own]
            if tagged:
                worst, n = Counter(tag.rpartition(" (")[0] for tag in tagged).most_common(1)[0]
                found[method, name] = worst if len(runs) == 1 else f"{worst}, {n} of {len(runs)} seeds"
    return found


def called_now(confusion: Mapping[str, Iterable[pd.DataFrame]], name: str = "forget") -> list[CalledNow]:
    """What the classes of a set are called, from the confusion tables of each method's runs (columns set, label,
    answer, n)."""
    rows = []
    for method, of_runs in confusion.items():
        if not (tables := list(of_runs)):  # runs of an earlier version
            continue
        whole = pd.concat(tables, ignore_index=True)
        for label, own in whole[whole["set"] == name].groupby("label"):
            counts = own.groupby("answer")["n"].sum().sort_values(ascending=False, kind="stable")
            total = int(counts.sum())
            shown = [f"{answer} {percent(n / total)}" for answer, n in counts.head(ANSWERS).items()]
            more = len(counts) - len(shown)
            answers = ", ".join([*shown, *([f"{more} more"] if more else [])])
            rows.append(CalledNow(method, str(label), total, answers))
    return rows


def confusions(own: Sequence[pd.DataFrame], naive: Sequence[pd.DataFrame], name: str = "test") -> list[Confused]:
    """The wrong answers that a method gives most often on a set, beside naive's, the most frequent first.

    own, naive: the confusion tables of their runs (columns set, label, answer, n).
    """
    first, second = (_shares(tables, name) for tables in (own, naive))
    wrong = [key for key in first if key[0] != key[1]]
    shown = sorted(wrong, key=lambda key: -first[key])[:CONFUSIONS]
    return [Confused(*key, first[key], second.get(key, 0.0)) for key in shown]


def _shares(tables: Sequence[pd.DataFrame], name: str) -> dict[tuple[str, str], float]:
    """(class, answer) → the share of the class's recordings, over all seeds."""
    if not tables:
        return {}
    whole = pd.concat(tables, ignore_index=True)
    counts = whole[whole["set"] == name].groupby(["label", "answer"])["n"].sum()
    shares = counts / counts.groupby("label").transform("sum")
    return {(str(label), str(answer)): float(share) for (label, answer), share in shares.items()}
