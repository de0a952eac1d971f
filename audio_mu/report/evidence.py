"""The sentences of an evidence record: what the figures of a method show, and what they do not.

Everything here is a pure function of figures, so that no sentence can disagree with its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from audio_mu.names import FLOOR, NAIVE, ORIGINAL
from audio_mu.report.facts import (
    Estimate,
    Figures,
    RequestFacts,
    exact_words,
    figures_of,
    interval_difference,
    interval_number,
    interval_percent,
    interval_points,
    paired,
    speed_words,
)
from audio_mu.report.rule import RULE, Outcome, Rule, Verdict, judge

RECORD_ROWS = {
    "forget/accuracy": ("recognised of the recordings to forget", interval_percent),
    "remain/accuracy": ("recognised of the rest of the training set", interval_percent),
    "test/accuracy": ("recognised of recordings never trained on", interval_percent),
    "held_out/accuracy": ("recognised of unseen ones of the same person or class", interval_percent),
    "test/macro_f1": ("macro-averaged F1, test set", interval_percent),
    "test/worst_class_accuracy": ("accuracy, worst class of the test set", interval_percent),
    "test/recording_accuracy": ("accuracy per recording, test set", interval_percent),
    "forget/loss": ("loss, forget set", interval_number),
    "mia/auc": ("attack by the loss, AUC (0.5: no better than guessing)", interval_number),
    "mia/score": ("called unseen by attack models", interval_percent),
    "audit/rmia_auc": ("attack RMIA, AUC (0.5: no better than guessing)", interval_number),
    "audit/ulira_auc": ("AUC of U-LiRA", interval_number),
    "audit/lira_auc": ("attack LiRA, AUC (0.5: no better than guessing)", interval_number),
    "audit/lira_tpr_at_fpr_1pct": ("members that LiRA finds at 1 % false alarms", interval_percent),
    "audit/rmia_online_auc": ("attack RMIA with models of halves, AUC", interval_number),
    "audit/person_p": ("attack on the person, p (small: in the model)", interval_number),
    "distance/js": ("Jensen-Shannon divergence to naive", interval_number),
}
"""Metric → its words in the table of a record, and how its estimates are written."""


@dataclass(frozen=True)
class Evidence:
    """The sentences of an evidence record."""

    headline: str
    shows: tuple[str, ...]
    does_not_show: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """How a method came to be the one of a record: in words, and among how many its figures have chosen it.

    left_out: the audits that the record lacks, why, and what makes them.
    """

    words: str = ""
    compared: int = 1
    left_out: Sequence[str] = ()


def evidence(
    method: str, long: pd.DataFrame, request: RequestFacts, rule: Rule = RULE, choice: Choice = Choice()
) -> Evidence:
    """What the figures of one cell show about a method, and what they do not."""
    figures, naive, original = (figures_of(long, m) for m in (method, NAIVE, ORIGINAL))
    verdict = judge(method, figures, original or None, rule, choice.compared)
    shows = [
        exact_words(figures),
        _accuracy_sentence("forget", figures, naive, original),
        _accuracy_sentence("remain", figures, naive, original),
        _accuracy_sentence("test", figures, naive, original),
        *_membership_sentences(figures, {} if method == NAIVE else naive),
        *_distance_sentences(figures, original, figures_of(long, FLOOR)),
        *_time_sentences(figures),
    ]
    return Evidence(
        headline=_headline(method, verdict),
        shows=tuple(sentence for sentence in shows if sentence),
        does_not_show=(*_limits(figures, request, verdict), *choice.left_out),
    )


def _headline(method: str, verdict: Verdict) -> str:
    because = "; ".join(verdict.reasons)
    words = {
        Outcome.REFERENCE: f"{method} is the target itself: {because}.",
        Outcome.UNTOUCHED: f"{method} is the model before unlearning: it {because}.",
        Outcome.NOT_JUDGED: f"{method} is not judged: {because}.",
        Outcome.PASSED: f"{method} meets the rule: {because}.",
    }
    said = words.get(verdict.outcome, f"{method} does not meet the rule, {verdict.outcome.value}: {because}.")
    return f"Not settled, other seeds could decide otherwise: {said}" if verdict.open else said


def _accuracy_sentence(name: str, figures: Figures, naive: Figures, original: Figures) -> str:
    metric = f"{name}/accuracy"
    if metric not in figures:
        return ""
    others = [
        f"{who} {interval_percent(known[metric])}"
        for who, known in ((ORIGINAL, original), (NAIVE, naive))
        if metric in known
    ]
    gap = figures.get(f"gap/{name}_accuracy")
    difference = f" Difference from naive, paired by seed: {interval_points(gap)}." if gap else ""
    compared = f" ({'; '.join(others)})" if others else ""
    return f"Accuracy on the {name} set: {interval_percent(figures[metric])}{compared}.{difference}"


def _membership_sentences(figures: Figures, naive: Figures) -> list[str]:
    lines = []
    if "mia/auc" in figures:
        target = f" (naive {interval_number(naive['mia/auc'])})" if "mia/auc" in naive else ""
        gap = figures.get("gap/mia_auc")
        lines.append(
            f"A membership attack by the loss reaches an AUC of {interval_number(figures['mia/auc'])}{target}; "
            "0.5 means that forgotten and unseen recordings look alike."
            + (f" Difference from naive, paired by seed: {interval_difference(gap)}." if gap else "")
        )
    if "mia/score" in figures:
        target = f" (naive {interval_percent(naive['mia/score'])})" if "mia/score" in naive else ""
        lines.append(f"Trained attack models call {interval_percent(figures['mia/score'])} of them unseen{target}.")
    if "audit/rmia_auc" in figures:
        lines.append(_rmia_sentence(figures["audit/rmia_auc"], naive.get("audit/rmia_auc")))
    if "audit/ulira_auc" in figures:
        found = figures["audit/ulira_auc"]
        side = "above it" if found.low is not None and found.low > 0.5 else "not above it"
        lines.append(
            f"U-LiRA reaches an AUC of {interval_number(found)}; 0.5 means not told from retrained models"
            + (f", the interval is {side}." if found.low is not None else ".")
        )
    return [*lines, *_reference_sentences(figures, naive)]


def _reference_sentences(figures: Figures, naive: Figures) -> list[str]:
    """What the attacks say that know models of random halves."""
    lines = []
    for metric, name in (("audit/lira_auc", "LiRA"), ("audit/rmia_online_auc", "Online RMIA")):
        if metric in figures:
            target = f" (naive {interval_number(naive[metric])})" if metric in naive else ""
            lines.append(
                f"{name}, an attack with models trained on random halves of the recordings, reaches an AUC of "
                f"{interval_number(figures[metric])}{target}."
            )
    if "audit/person_p" in figures and "audit/person_p_smallest" in figures:
        target = f", for naive {naive['audit/person_p'].mean:.3g}" if "audit/person_p" in naive else ""
        smallest = figures["audit/person_p_smallest"].mean
        lines.append(
            f"Whether the person is in the model: p {figures['audit/person_p'].mean:.3g}, mean over the seeds{target}; "
            f"small means yes, and it cannot be smaller than {smallest:.3g}, for want of more people and models that "
            "have not seen them."
        )
    return lines


def _rmia_sentence(found: Estimate, naive: Estimate | None) -> str:
    """Read beside naive, which never held the recordings and need not be at 0.5 on them."""
    attack = f"RMIA, an attack with retrained models as references, reaches an AUC of {interval_number(found)}"
    if naive is None:
        return f"{attack}."
    apart = paired(found, naive)
    if apart is None:
        return f"{attack} (naive {interval_number(naive)})."
    if apart.low is None:
        side = "above naive's, of one seed" if apart.mean > 0 else "not above naive's, of one seed"
    else:
        side = "surely above naive's" if apart.low > 0 else "not surely above naive's"
    return (
        f"{attack} (naive {interval_number(naive)}), {side}: difference {interval_difference(apart)}, paired by seed."
    )


def _distance_sentences(figures: Figures, original: Figures, floor: Figures) -> list[str]:
    own, before = figures.get("distance/js"), original.get("distance/js")
    if own is None or before is None:
        return []
    apart = paired(own, before)
    closer = "closer, but within the spread of the seeds, to"
    if apart is not None and apart.high is not None and apart.high < 0:
        closer = "closer to"
    side = closer if own.mean < before.mean else "no closer to"
    change = f", a difference of {interval_difference(apart)} paired by seed" if apart else ""
    yardstick = f"; retrained models of two seeds {floor['distance/js'].mean:.3f}" if "distance/js" in floor else ""
    return [
        f"Its answers on the forgotten recordings are {side} the retrained model's than the original's were: "
        f"Jensen-Shannon divergence {interval_number(own)}, before {interval_number(before)}{change}{yardstick}."
    ]


def _time_sentences(figures: Figures) -> list[str]:
    if "time/speedup" not in figures or "time/total_s" not in figures:
        return []
    return [f"It took {figures['time/total_s'].mean:.1f} s and {speed_words(figures['time/speedup'])}."]


def _limits(figures: Figures, request: RequestFacts, verdict: Verdict) -> list[str]:
    n = max((estimate.n for estimate in figures.values()), default=0)
    lines = [
        "It is no proof of deletion: it compares behaviour with retrained models, on these recordings, by these "
        "attacks; a stronger attack may find more.",
        "It says nothing about what lies outside this store: backups, copies that were handed on, and models that "
        "others have made from the models before. Nor does it show that no copy of the recordings has stayed.",
    ]
    if n == 1:
        lines.append(
            "One seed gives no interval over seeds, only one over recordings: another seed could decide otherwise."
        )
    elif n < 6:
        lines.append(
            f"With {n} seeds no distribution-free test can be significant at 5 % (its p cannot go below "
            f"{2 / 2**n:.3g}); the intervals rest on the seeds' differences being normal."
        )
    if verdict.open:
        lines.append("The verdict is not settled: at least one interval reaches across the rule's limit.")
    low, high = figures.get("mia/auc_low"), figures.get("mia/auc_high")
    if low and high:
        lines.append(
            f"From {request.n_forget:,} recordings one model's AUC is known to ± {(high.mean - low.mean) / 2:.3f} only."
        )
    if "mia/auc" not in figures:
        lines.append("There are no unseen recordings of the same kind: no membership attack by the loss was possible.")
    if request.speaker_confounded:
        lines.append("The unseen recordings are of other speakers: the attacks may recognise speakers, not membership.")
    return lines
