"""What many seeds allow: KLoM of every set, and how sure the differences from retrained networks are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from audio_mu.audit.equivalence import auc_gap, mean_gap
from audio_mu.audit.klom import gaussian_klom, halves, klom, spread
from audio_mu.audit.performance import logit_scaled_confidence

MANY_SEEDS = 16
"""From here on KLoM, and tests of equivalence with retraining."""


@dataclass(frozen=True)
class Answers:
    """What networks of several seeds answer on a set's clips: margins, and 1 where rightly, both [seeds, n]."""

    margins: np.ndarray
    right: np.ndarray


def answers_of(read: Sequence[tuple[np.ndarray, np.ndarray]]) -> Answers:
    """The answers of networks, given by each seed's logits [n, classes] and labels [n]."""
    margins = [logit_scaled_confidence(logits, labels) for logits, labels in read]
    right = [(logits.argmax(axis=1) == labels).astype(float) for logits, labels in read]
    return Answers(np.stack(margins), np.stack(right))


def klom_figures(own: Mapping[str, Answers], naive: Mapping[str, Answers], *, is_null: bool) -> dict[str, float]:
    """Return KLoM of every set, of the networks of the same seeds and of independent halves: mean and percentile.

    is_null: naive beside itself has the halves alone, which are the null of the others' halves.
    """
    values: dict[str, float] = {}
    for name, answers in naive.items():
        ours, theirs = own[name].margins, answers.margins
        if not theirs.shape[1]:
            continue
        found = {"halves": halves(ours, theirs)}
        if not is_null:
            found |= {"published": klom(ours, theirs), "gaussian": gaussian_klom(ours, theirs)}
        for kind, clips in found.items():
            told = spread(clips)
            values |= {f"audit/klom_{name}_{kind}": told.mean, f"audit/klom_{name}_{kind}_p95": told.high}
    return values


def klom_reading(values: Mapping[str, float]) -> str:
    """A sentence about the forget set."""
    of_halves = values["audit/klom_forget_halves"]
    published = values.get("audit/klom_forget_published", of_halves)
    return f"KLoM on the forget set {published:.2f}, of halves {of_halves:.2f}"


def sure_gaps(
    own: Mapping[str, Answers], naive: Mapping[str, Answers], placed: tuple[np.ndarray, np.ndarray] | None,
    people: Callable[[str], Sequence[str]],
) -> dict[str, float]:  # fmt: skip
    """Return how sure the differences from naive are, of seeds and people together: what `report.rule` tests.

    placed: differences of the attack's placements of forget clips and non-members, see `auc_gap`; None without it.
    people: set, or `nonmembers` → who speaks its clips.
    """
    gaps = {
        f"{name}_accuracy": mean_gap(own[name].right - answers.right, people(name))
        for name, answers in naive.items()
        if answers.right.shape[1] > 1
    }
    if placed is not None:
        gaps["mia_auc"] = auc_gap(*placed, people("forget"), people("nonmembers"))
    return {f"sure/{figure}_{part}": value for figure, gap in gaps.items() for part, value in asdict(gap).items()}
