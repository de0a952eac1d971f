"""What the figures of an unlearning say in words: verdicts by a stated rule, and the sentences of the evidence record.

Everything here is a pure function of figures, so that no sentence can disagree with its number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import pandas as pd

REFERENCE, ORIGINAL = "naive", "original"
FLOOR = "retrain_floor"  # the row of distances between retrained models of different seeds
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
    chance all look alike, a wrecked one too.

    Nor is anything judged where retraining failed on a seed: a mean over seeds would excuse damage on all the others.
    Nor where the original itself exceeds naive by no more than `forget` and `mia`: what cannot tell the untouched model
    from the retrained one cannot tell an unlearned one either.
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


@dataclass(frozen=True)
class Estimate:
    """A mean over n seeds with its 95 % t interval; low and high are None for a single seed."""

    mean: float
    low: float | None
    high: float | None
    n: int


Figures = Mapping[str, Estimate]
"""Metric → estimate, of one method in one cell."""


class Outcome(Enum):
    """What is said of a method; the value is how the report writes it."""

    REFERENCE = "target"
    UNTOUCHED = "before unlearning"
    NOT_JUDGED = "not judged"
    DAMAGED = "accuracy lost"
    NOT_FORGOTTEN = "not forgotten"
    OVER_UNLEARNED = "over-unlearned"
    PASSED = "meets the rule"


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


@dataclass(frozen=True)
class RequestFacts:
    """What was asked to be forgotten, counts in clips; what the attack's non-members are, and whether they give the
    speaker away rather than membership."""

    kind: str
    name: str
    hash: str
    n_forget: int
    n_remain: int
    n_test: int
    n_held_out: int
    n_duplicates_added: int
    nonmembers: str = ""
    speaker_confounded: bool = False


def figures_of(long: pd.DataFrame, method: str) -> dict[str, Estimate]:
    """The figures of a method from the long table of one cell (columns method, metric, mean, n, ci_low, ci_high)."""
    return {
        row.metric: Estimate(row.mean, _number(row.ci_low), _number(row.ci_high), int(row.n))
        for row in long[long["method"] == method].itertuples()
    }


def _number(value: float | None) -> float | None:
    return None if value is None or pd.isna(value) else float(value)


def judge(method: str, figures: Figures, original: Figures | None = None, rule: Rule = RULE) -> Verdict:
    """Apply the rule to a method; `original` are the figures of the model before unlearning, where they are known."""
    if method != REFERENCE and "gap/forget_accuracy" not in figures:
        return Verdict(Outcome.NOT_JUDGED, ("there is no retrained model (naive) to compare with",), settled=False)
    learned = _accuracy_of_naive(figures)
    if learned is not None and learned < rule.works:
        reason = (
            f"the retrained model (naive) recognises only {percent(learned)} of the recordings it was trained on: "
            "train longer or with another recipe"
        )
        return Verdict(Outcome.NOT_JUDGED, (reason,), settled=False)
    share = figures.get(LEARNED)
    if share is not None and share.mean < 1:
        reason = (
            f"retraining (naive) failed on {round((1 - share.mean) * share.n)} of {share.n} seeds, on which it has "
            "learned less than half of what the original has: leave these seeds out or train longer"
        )
        return Verdict(Outcome.NOT_JUDGED, (reason,), settled=False)
    if method == REFERENCE:
        return Verdict(Outcome.REFERENCE, ("retrained from scratch without the recordings",))
    if method == ORIGINAL:
        return Verdict(Outcome.UNTOUCHED, ("still holds the recordings",))
    own = original.get("gap/forget_accuracy") if original else None
    tolerance = rule.forget_tolerance(own.mean if own else None)
    if original and own and _indistinguishable(own, original.get("gap/mia_auc"), tolerance, rule):
        return Verdict(Outcome.NOT_JUDGED, (_alike(own, original.get("gap/mia_auc")),), settled=False)
    forget, auc = figures["gap/forget_accuracy"], figures.get("gap/mia_auc")
    damaged = [
        f"{name} accuracy is {points(-gap.mean)} below naive's, {points(rule.kept)} are allowed"
        for name in ("remain", "test")
        if (gap := figures.get(f"gap/{name}_accuracy")) is not None and gap.mean < -rule.kept
    ]
    remembered, beyond = [], []
    if abs(forget.mean) > tolerance:
        side = "above" if forget.mean > 0 else "below"
        reason = f"forget accuracy is {points(abs(forget.mean))} {side} naive's, {points(tolerance)} are allowed"
        (remembered if forget.mean > 0 else beyond).append(reason)
    if auc is not None and abs(auc.mean) > rule.mia:
        side = "above" if auc.mean > 0 else "below"
        reason = f"the membership attack's AUC is {abs(auc.mean):.3f} {side} naive's, {rule.mia:g} is allowed"
        (remembered if auc.mean > 0 else beyond).append(reason)
    reasons = (*damaged, *remembered, *beyond)
    settled = _settled(figures, rule, tolerance) and (
        not original or not own or _surely_known(original, tolerance, rule)
    )
    if damaged:
        return Verdict(Outcome.DAMAGED, reasons, settled)
    if remembered:
        return Verdict(Outcome.NOT_FORGOTTEN, reasons, settled)
    if beyond:
        return Verdict(Outcome.OVER_UNLEARNED, reasons, settled)
    return Verdict(Outcome.PASSED, ("every figure lies within the rule's tolerances",), settled)


def _indistinguishable(forget: Estimate, auc: Estimate | None, tolerance: float, rule: Rule) -> bool:
    """Whether the original, which holds the recordings, knows no more of them than the rule allows."""
    return forget.mean <= tolerance and (auc is None or auc.mean <= rule.mia)


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


def _accuracy_of_naive(figures: Figures) -> float | None:
    """Naive's accuracy on the remain set: a method's own less its difference, or naive's own, which has none."""
    own, gap = figures.get("remain/accuracy"), figures.get("gap/remain_accuracy")
    return None if own is None else own.mean - (gap.mean if gap else 0.0)


def _settled(figures: Figures, rule: Rule, forget_tolerance: float) -> bool:
    """Whether each 95 % interval lies wholly inside or wholly outside of what the rule allows."""
    bounds = {
        "gap/remain_accuracy": (-rule.kept, None),
        "gap/test_accuracy": (-rule.kept, None),
        "gap/forget_accuracy": (-forget_tolerance, forget_tolerance),
        "gap/mia_auc": (-rule.mia, rule.mia),
    }
    for metric, limits in bounds.items():
        estimate = figures.get(metric)
        if estimate is None:
            continue
        if estimate.low is None or estimate.high is None:
            return False
        if any(limit is not None and estimate.low < limit < estimate.high for limit in limits):
            return False
    return True


def verdicts(long: pd.DataFrame, methods: Sequence[str], rule: Rule = RULE) -> dict[str, Verdict]:
    """The verdict on every method of one cell."""
    original = figures_of(long, ORIGINAL) or None
    return {method: judge(method, figures_of(long, method), original, rule) for method in methods}


def best_method(long: pd.DataFrame, methods: Sequence[str], rule: Rule = RULE) -> str | None:
    """The method of highest mean ToW among those that meet the rule, or None; neither naive nor the original."""
    passed = [m for m, v in verdicts(long, methods, rule).items() if v.outcome is Outcome.PASSED]
    return closest(long, passed)


def closest(long: pd.DataFrame, methods: Sequence[str]) -> str | None:
    """The method of highest mean ToW, the first of equals, whether it meets the rule or not."""
    scores = {m: figures_of(long, m).get("gap/tow") for m in methods if m not in (REFERENCE, ORIGINAL)}
    known = {method: score.mean for method, score in scores.items() if score is not None}
    return max(known, key=lambda method: known[method]) if known else None


def summary(long: pd.DataFrame, methods: Sequence[str], request: RequestFacts, rule: Rule = RULE) -> list[str]:
    """What a reader should know first, in sentences made from the figures of one cell."""
    judged = verdicts(long, methods, rule)
    lines = [_request_sentence(request), *_reference_sentences(long, methods)]
    candidates = [m for m in methods if m not in (REFERENCE, ORIGINAL)]
    if REFERENCE not in methods:
        return lines
    passed = [m for m in candidates if judged[m].outcome is Outcome.PASSED]
    if passed:
        best = closest(long, passed)
        assert best is not None  # a method that was judged has its gaps, and so its ToW
        figures = figures_of(long, best)
        lines.append(
            f"{len(passed)} of {len(candidates)} methods {'meets' if len(passed) == 1 else 'meet'} the rule: "
            f"{_listed(passed)}. {best} comes closest to retraining (ToW {figures['gap/tow'].mean:.3f})"
            + (f" and {_speed(figures['time/speedup'])}." if "time/speedup" in figures else ".")
        )
    elif candidates and judged[candidates[0]].outcome is Outcome.NOT_JUDGED:
        lines.append(f"No method is judged: {judged[candidates[0]].reasons[0]}.")
        return lines
    elif candidates:
        lines.append(f"None of the {len(candidates)} methods meets the rule.")
    for outcome, words in (
        (Outcome.NOT_FORGOTTEN, "Not forgotten"),
        (Outcome.OVER_UNLEARNED, "Over-unlearned"),
        (Outcome.DAMAGED, "Accuracy lost"),
    ):
        failing = [m for m in candidates if judged[m].outcome is outcome]
        if failing:
            lines.append(f"{words}: " + "; ".join(f"{m} ({judged[m].reasons[0]})" for m in failing) + ".")
    unsettled = [m for m in candidates if not judged[m].settled]
    if unsettled and len(unsettled) == len(candidates):
        lines.append("No verdict is settled: the intervals over the seeds reach across the rule's limits.")
    elif unsettled:
        lines.append(f"Not settled, because an interval reaches across one of the rule's limits: {_listed(unsettled)}.")
    return lines


def _request_sentence(request: RequestFacts) -> str:
    total = request.n_forget + request.n_remain
    share = request.n_forget / total if total else 0.0
    copies = (
        f", {request.n_duplicates_added} of them copies of requested recordings" if request.n_duplicates_added else ""
    )
    return (
        f"To be forgotten: {request.n_forget:,} of {total:,} training recordings ({percent(share)}; request "
        f"{request.name}{copies})."
    )


def _reference_sentences(long: pd.DataFrame, methods: Sequence[str]) -> list[str]:
    naive, original = figures_of(long, REFERENCE), figures_of(long, ORIGINAL)
    parts = []
    if "forget/accuracy" in original:
        parts.append(f"The original model recognises {interval_percent(original['forget/accuracy'])} of them")
    if "forget/accuracy" in naive:
        start = "the one" if parts else "A model"
        parts.append(
            f"{start} retrained without them (naive, the target) {'' if parts else 'recognises '}"
            f"{interval_percent(naive['forget/accuracy'])}{'' if parts else ' of them'}"
        )
    lines = [", ".join(parts) + "."] if parts else []
    if REFERENCE not in methods:
        lines.append("No model was retrained (naive), so nothing says how much a method should forget: none is judged.")
    return lines


@dataclass(frozen=True)
class Evidence:
    """The sentences of an evidence record."""

    headline: str
    shows: tuple[str, ...]
    does_not_show: tuple[str, ...]


def evidence(method: str, long: pd.DataFrame, request: RequestFacts, rule: Rule = RULE) -> Evidence:
    """What the figures of one cell show about a method, and what they do not."""
    figures, naive, original = (figures_of(long, m) for m in (method, REFERENCE, ORIGINAL))
    verdict = judge(method, figures, original or None, rule)
    shows = [
        _accuracy_sentence("forget", figures, naive, original),
        _accuracy_sentence("remain", figures, naive, original),
        _accuracy_sentence("test", figures, naive, original),
        *_membership_sentences(figures, {} if method == REFERENCE else naive),
        *_distance_sentences(figures, original, figures_of(long, FLOOR)),
        *_time_sentences(figures),
    ]
    return Evidence(
        headline=_headline(method, verdict),
        shows=tuple(sentence for sentence in shows if sentence),
        does_not_show=tuple(_limits(figures, naive, request, verdict)),
    )


def _headline(method: str, verdict: Verdict) -> str:
    because = "; ".join(verdict.reasons)
    words = {
        Outcome.REFERENCE: f"{method} is the target itself: {because}.",
        Outcome.UNTOUCHED: f"{method} is the model before unlearning: it {because}.",
        Outcome.NOT_JUDGED: f"Whether {method} has forgotten cannot be judged: {because}.",
        Outcome.DAMAGED: f"{method} failed, it lost accuracy that retraining keeps: {because}.",
        Outcome.NOT_FORGOTTEN: f"{method} failed, the recordings are not forgotten: {because}.",
        Outcome.OVER_UNLEARNED: (
            f"{method} failed, it is over-unlearned, which sets the recordings apart from unseen ones: {because}."
        ),
        Outcome.PASSED: f"{method} meets the stated rule: {because}.",
    }
    return words[verdict.outcome]


def _accuracy_sentence(name: str, figures: Figures, naive: Figures, original: Figures) -> str:
    metric = f"{name}/accuracy"
    if metric not in figures:
        return ""
    others = [
        f"{who} {interval_percent(known[metric])}"
        for who, known in (("original", original), ("naive", naive))
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
        lines.append(
            f"A membership attack by the loss reaches an AUC of {interval_number(figures['mia/auc'])}{target}; "
            "0.5 means that forgotten and unseen recordings look alike."
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
    return lines


def _rmia_sentence(found: Estimate, naive: Estimate | None) -> str:
    """Read beside naive, which never held the recordings and need not be at 0.5 on them."""
    attack = f"RMIA, an attack with retrained models as references, reaches an AUC of {interval_number(found)}"
    if naive is None:
        return f"{attack}."
    side = "not above naive's"
    if found.low is not None and naive.high is not None:
        side = "above naive's interval" if found.low > naive.high else "not above naive's beyond the intervals"
    elif found.mean > naive.mean:
        side = "above naive's, of one seed"
    return f"{attack} (naive {interval_number(naive)}), {side}."


def _distance_sentences(figures: Figures, original: Figures, floor: Figures) -> list[str]:
    own, before = figures.get("distance/js"), original.get("distance/js")
    if own is None or before is None:
        return []
    apart = own.high is not None and before.low is not None and own.high < before.low
    closer = "closer to" if apart else "closer, but within the spread of the seeds, to"
    side = closer if own.mean < before.mean else "no closer to"
    yardstick = f"; retrained models of two seeds {floor['distance/js'].mean:.3f}" if "distance/js" in floor else ""
    return [
        f"Its answers on the forgotten recordings are {side} the retrained model's than the original's were: "
        f"Jensen-Shannon divergence {interval_number(own)}, before {interval_number(before)}{yardstick}."
    ]


def _time_sentences(figures: Figures) -> list[str]:
    if "time/speedup" not in figures or "time/total_s" not in figures:
        return []
    return [f"It took {figures['time/total_s'].mean:.1f} s and {_speed(figures['time/speedup'])}."]


def _speed(speedup: Estimate) -> str:
    if speedup.mean >= 1:
        return f"is {speedup.mean:.1f} times as fast as retraining"
    return f"takes {1 / speedup.mean:.1f} times as long as retraining"


def _limits(figures: Figures, naive: Figures, request: RequestFacts, verdict: Verdict) -> list[str]:
    n = max((estimate.n for estimate in figures.values()), default=0)
    lines = [
        "It is no proof of deletion: it compares behaviour with retrained models, on these recordings, by these "
        "attacks; a stronger attack may find more.",
        "It says nothing about other copies: the base models, which still hold the recordings, stay in the registry "
        "until they are deleted, as do the recordings themselves, backups, and models made from the base models.",
    ]
    if n == 1:
        lines.append("One seed gives no interval: another seed could decide otherwise.")
    elif n < 6:
        lines.append(
            f"With {n} seeds no distribution-free test can be significant at 5 % (its p cannot go below "
            f"{2 / 2**n:.3g}); the intervals rest on the seeds' differences being normal."
        )
    if not verdict.settled and verdict.outcome not in (Outcome.NOT_JUDGED, Outcome.REFERENCE, Outcome.UNTOUCHED):
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


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.1f} %"


def points(share: float) -> str:
    """A difference of shares in percentage points."""
    return f"{100 * share:.1f} points"


def interval_percent(estimate: Estimate) -> str:
    """A share with its interval, in percent."""
    if estimate.low is None or estimate.high is None:
        return percent(estimate.mean)
    return f"{percent(estimate.mean)} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def interval_points(estimate: Estimate) -> str:
    """A signed difference of shares with its interval, in percentage points."""
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.mean:+.1f} points"
    return f"{100 * estimate.mean:+.1f} points [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"


def interval_number(estimate: Estimate) -> str:
    """A number with its interval."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean:.3f}"
    return f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
