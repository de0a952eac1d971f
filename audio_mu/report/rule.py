"""The rule by which an unlearned model may go into service, and the verdicts that it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import pandas as pd

from audio_mu.names import NAIVE, ORIGINAL
from audio_mu.report.facts import Estimate, Figures, figures_of, percent, points

LEARNED = "naive/learned"
"""1 on a seed whose retrained model has learned, 0 where it failed; its mean is the share of seeds."""


@dataclass(frozen=True)
class Rule:
    """When an unlearned model may go into service; every figure is a mean of differences paired by seed.

    kept: largest loss of accuracy on the remain and test sets against naive.
    forget: largest difference, either way, of the accuracy on the forget set from naive's; never more than half of
    the original's own difference, except that `least` is always allowed.
    mia: largest difference, either way, of the population attack's AUC from naive's.
    works: smallest accuracy of naive on the remain set, which it was trained on. Below it nothing is judged: models at
    chance all look alike, a wrecked model too.

    Nor is anything judged where retraining failed on a seed: a mean over seeds would excuse damage on all the others.
    Nor where the original itself exceeds naive by no more than `forget` and `mia`: a measure that cannot tell the
    untouched model from the retrained model cannot tell an unlearned model either.
    """

    kept: float = 0.02
    forget: float = 0.05
    least: float = 0.01
    mia: float = 0.05
    works: float = 0.5

    def forget_tolerance(self, original_gap: float | None) -> float:
        """What is allowed on the forget set, given the original's difference from naive."""
        if original_gap is None:
            return self.forget
        return max(self.least, min(self.forget, original_gap / 2))

    @property
    def text(self) -> str:
        """The rule in words."""
        return (
            f"accuracy on the remain and the test set at most {points(self.kept)} below naive's; accuracy on the "
            f"forget set within {points(self.forget)} of naive's and within half of the original's difference from it "
            f"({points(self.least)} is always allowed); AUC of the membership attack within {self.mia:g} of naive's; "
            f"naive itself recognises at least {percent(self.works)} of the remain set and has learned on every seed, "
            "and the original, which holds the recordings, exceeds one of the last two limits"
        )


RULE = Rule()


class Outcome(Enum):
    """A verdict's word, as console, report and documentation write it."""

    REFERENCE = "target"
    UNTOUCHED = "before unlearning"
    NOT_JUDGED = "not judged"
    DAMAGED = "accuracy lost"
    NOT_FORGOTTEN = "not forgotten"
    OVER_UNLEARNED = "over-unlearned"
    PASSED = "meets the rule"


FAILURES = (Outcome.NOT_FORGOTTEN, Outcome.OVER_UNLEARNED, Outcome.DAMAGED)


@dataclass(frozen=True)
class Verdict:
    """An outcome with its reasons; `settled` says whether the intervals lie on the same side of the rule."""

    outcome: Outcome
    reasons: tuple[str, ...]
    settled: bool = True

    @property
    def passed(self) -> bool:
        """Whether the model may go into service by the rule."""
        return self.outcome in (Outcome.PASSED, Outcome.REFERENCE)

    @property
    def style(self) -> str:
        """The name of the outcome's style in the pages."""
        return self.outcome.name.lower().replace("_", "-")

    @property
    def rests_on_intervals(self) -> bool:
        """Whether other seeds could decide otherwise: the rule was applied."""
        return self.outcome is Outcome.PASSED or self.outcome in FAILURES


def judge(method: str, figures: Figures, original: Figures | None = None, rule: Rule = RULE) -> Verdict:
    """Apply the rule to a method; `original` are the figures of the model before unlearning, where they are known."""
    if reason := _no_measure(method, figures, rule):
        return Verdict(Outcome.NOT_JUDGED, (reason,), settled=False)
    if method == NAIVE:
        return Verdict(Outcome.REFERENCE, ("retrained from scratch without the recordings",))
    if method == ORIGINAL:
        return Verdict(Outcome.UNTOUCHED, ("still holds the recordings",))
    own = original.get("gap/forget_accuracy") if original else None
    tolerance = rule.forget_tolerance(own.mean if own else None)
    settled = _settled(figures, rule, tolerance)
    if original and own:
        auc = original.get("gap/mia_auc")
        if own.mean <= tolerance and (auc is None or auc.mean <= rule.mia):
            return Verdict(Outcome.NOT_JUDGED, (_alike(own, auc),), settled=False)
        settled = settled and _surely_known(original, tolerance, rule)
    found = _violations(figures, rule, tolerance)
    if not found:
        return Verdict(Outcome.PASSED, ("every figure lies within the rule's tolerances",), settled)
    order = (Outcome.DAMAGED, Outcome.NOT_FORGOTTEN, Outcome.OVER_UNLEARNED)
    found.sort(key=lambda violation: order.index(violation[0]))
    return Verdict(found[0][0], tuple(reason for _, reason in found), settled)


def _no_measure(method: str, figures: Figures, rule: Rule) -> str:
    """Why naive is no measure for a method, or an empty text."""
    if method != NAIVE and "gap/forget_accuracy" not in figures:
        return "there is no retrained model (naive) to compare with"
    own, gap = figures.get("remain/accuracy"), figures.get("gap/remain_accuracy")
    # A method's own accuracy less its difference is naive's; naive has no difference.
    learned = None if own is None else own.mean - (gap.mean if gap else 0.0)
    if learned is not None and learned < rule.works:
        return (
            f"the retrained model (naive) recognises only {percent(learned)} of the recordings it was trained on: "
            "train longer or with another recipe"
        )
    share = figures.get(LEARNED)
    if share is not None and share.mean < 1:
        return (
            f"retraining (naive) failed on {round((1 - share.mean) * share.n)} of {share.n} seeds, on which it has "
            "learned less than half of what the original has: leave these seeds out or train longer"
        )
    return ""


def _violations(figures: Figures, rule: Rule, forget_tolerance: float) -> list[tuple[Outcome, str]]:
    """Every limit of the rule that a method's means exceed, with the outcome that this is."""
    found = [
        (Outcome.DAMAGED, f"{name} accuracy is {points(-gap.mean)} below naive's, {points(rule.kept)} are allowed")
        for name in ("remain", "test")
        if (gap := figures.get(f"gap/{name}_accuracy")) is not None and gap.mean < -rule.kept
    ]
    forget, auc = figures["gap/forget_accuracy"].mean, figures.get("gap/mia_auc")
    if abs(forget) > forget_tolerance:
        outcome, side = _side(forget)
        allowed = f"{points(forget_tolerance)} are allowed"
        found.append((outcome, f"forget accuracy is {points(abs(forget))} {side} naive's, {allowed}"))
    if auc is not None and abs(auc.mean) > rule.mia:
        outcome, side = _side(auc.mean)
        allowed = f"{rule.mia:g} is allowed"
        found.append((outcome, f"the membership attack's AUC is {abs(auc.mean):.3f} {side} naive's, {allowed}"))
    return found


def _side(gap: float) -> tuple[Outcome, str]:
    return (Outcome.NOT_FORGOTTEN, "above") if gap > 0 else (Outcome.OVER_UNLEARNED, "below")


def _surely_known(original: Figures, tolerance: float, rule: Rule) -> bool:
    """Whether an interval of the original lies beyond what the rule allows: that there is something to forget."""
    limits = {"gap/forget_accuracy": tolerance, "gap/mia_auc": rule.mia}
    lows = {metric: original[metric].low for metric in limits if metric in original}
    return any(low is not None and low > limits[metric] for metric, low in lows.items())


def _alike(forget: Estimate, auc: Estimate | None) -> str:
    attack = "" if auc is None else f", AUC of the membership attack {auc.mean:+.3f}"
    return (
        f"the original itself knows the recordings better than naive (forget accuracy {100 * forget.mean:+.1f} points"
        f"{attack}) by no more than the rule allows, so that an unlearned model cannot be told from an untouched one; "
        "a retrained one (naive) needs no such proof"
    )


def _settled(figures: Figures, rule: Rule, forget_tolerance: float) -> bool:
    """Whether each 95 % interval lies wholly inside or wholly outside of what the rule allows."""
    bounds = {
        "gap/remain_accuracy": (-rule.kept,),
        "gap/test_accuracy": (-rule.kept,),
        "gap/forget_accuracy": (-forget_tolerance, forget_tolerance),
        "gap/mia_auc": (-rule.mia, rule.mia),
    }
    for metric, limits in bounds.items():
        estimate = figures.get(metric)
        if estimate is None:
            continue
        if estimate.low is None or estimate.high is None:
            return False
        if any(estimate.low < limit < estimate.high for limit in limits):
            return False
    return True


def verdicts(long: pd.DataFrame, methods: Sequence[str], rule: Rule = RULE) -> dict[str, Verdict]:
    """The verdict on every method of one cell."""
    original = figures_of(long, ORIGINAL) or None
    return {method: judge(method, figures_of(long, method), original, rule) for method in methods}


def best_method(long: pd.DataFrame, methods: Sequence[str], rule: Rule = RULE) -> str | None:
    """The method of highest mean ToW among those that meet the rule, or None; neither naive nor the original."""
    return closest(long, [m for m, v in verdicts(long, methods, rule).items() if v.outcome is Outcome.PASSED])


def closest(long: pd.DataFrame, methods: Sequence[str]) -> str | None:
    """The method of highest mean ToW, the first of equals, whether it meets the rule or not."""
    scores = {m: figures_of(long, m).get("gap/tow") for m in methods if m not in (NAIVE, ORIGINAL)}
    known = {method: score.mean for method, score in scores.items() if score is not None}
    return max(known, key=lambda method: known[method]) if known else None
