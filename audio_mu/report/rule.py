"""The rule by which an unlearned model may go into service, and the verdicts that it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import pandas as pd

from audio_mu.audit.one_model import RECOVERY_TOLERANCE, SHARE
from audio_mu.config.commands import command
from audio_mu.names import EXACT, NAIVE, ORIGINAL
from audio_mu.report.differences import from_half_way
from audio_mu.report.equivalence import LEVEL, Equivalence, adjusted, equivalence, of_many
from audio_mu.report.facts import Figures, figures_of, percent, points
from audio_mu.report.limits import Limit, Side, read

LEARNED = "naive/learned"
"""1 on a seed whose retrained model has learned, 0 where it failed; its mean is the share of seeds."""
MEASURED = "naive/measured"
"""1 on a seed whose run was compared with naive and says how sure the differences are, 0 where it lacks that."""
DOUBT = 0.05
"""How often a method that has not forgotten may be taken for one that has, over all the methods compared."""
WITNESSES = {"forget_accuracy": "forget accuracy", "mia_auc": "the membership attack's AUC"}
"""The figures that can show that something was forgotten."""


@dataclass(frozen=True)
class Rule:
    """When an unlearned model may go into service; every figure is a difference from naive of the same seed.

    kept: largest loss of accuracy on the remain and test sets.
    forget: largest difference, either way, of the accuracy on the forget set; never more than half of the original's
    own difference, except that `least` is always allowed.
    mia: largest difference, either way, of the population attack's AUC.
    group: largest loss of accuracy on the remaining recordings of one class or of one other speaker.
    works: smallest accuracy of naive on the remain set, which it was trained on. Below it nothing is judged: models at
    chance all look alike, a wrecked model too.

    `kept`, `forget`, `least` and `works` are parts of what lies above the largest class's share of the recordings: of
    two classes a model that has learned nothing recognises half.

    A figure that is surely beyond its limit, on one seed or in the mean, refuses (95 % intervals that hold the sampling
    of recordings). A mean beyond it refuses too, unless so few recordings could not have shown it within: such a figure
    is set aside, where it is not a sure loss of accuracy. And one figure must show that the model has forgotten: that
    it is nearer to naive than to the original. Nothing is judged where retraining failed on a seed: a mean would excuse
    damage on all the others. Nor where the original itself exceeds naive by no more than `forget` and `mia`.
    """

    kept: float = 0.02
    forget: float = 0.05
    least: float = 0.01
    mia: float = 0.05
    group: float = 0.1
    works: float = 0.5

    def forget_tolerance(self, original_gap: float | None, share: float = 0.0) -> float:
        """What is allowed on the forget set, given the original's difference and the largest class's share."""
        above = 1 - share
        if original_gap is None:
            return self.forget * above
        return max(self.least * above, min(self.forget * above, original_gap / 2))

    @property
    def text(self) -> str:
        """The rule in words."""
        return (
            f"accuracy on the remain and the test set at most {points(self.kept)} below naive's, on the remaining "
            f"recordings of no class and no other speaker surely more than {points(self.group)}; accuracy on the "
            f"forget set within {points(self.forget)} of naive's and within half of the original's difference from it "
            f"({points(self.least)} is always allowed); AUC of the membership attack within {self.mia:g} of naive's; "
            "no seed surely beyond one of these limits; accuracy on the forget set or AUC surely nearer to naive's "
            f"than to the original's; naive itself recognises at least {percent(self.works)} of the remain set and has "
            "learned on every seed; figures that so few recordings do not carry are set aside, and points are of what "
            "lies above the largest class's share"
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
    NOT_SHOWN = "not shown"
    PASSED = "meets the rule"


FAILURES = (Outcome.NOT_FORGOTTEN, Outcome.OVER_UNLEARNED, Outcome.DAMAGED, Outcome.NOT_SHOWN)
OF_SIDE = {Side.LOST: Outcome.DAMAGED, Side.ABOVE: Outcome.NOT_FORGOTTEN, Side.BELOW: Outcome.OVER_UNLEARNED}


@dataclass(frozen=True)
class Verdict:
    """An outcome with its reasons; `settled` says whether the intervals lie on the same side of the rule.

    compared: how many methods share the doubt that the one chosen has forgotten nothing.
    """

    outcome: Outcome
    reasons: tuple[str, ...]
    settled: bool = True
    compared: int = 1

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

    @property
    def open(self) -> bool:
        """Whether the rule was applied and an interval reaches across a limit."""
        return self.rests_on_intervals and not self.settled


def judge(
    method: str, figures: Figures, original: Figures | None = None, rule: Rule = RULE, compared: int = 1,
    tested: Equivalence | None = None,
) -> Verdict:  # fmt: skip
    """Apply the rule to a method; `original` are the figures of the model before unlearning, where they are known.

    compared: the methods among which this one is chosen by these very figures. tested: its tests of equivalence among
    those of others, else it is tested by itself. With enough seeds for them a verdict is settled by these tests.
    """
    verdict = _judged(method, figures, original, rule, compared)
    if not verdict.rests_on_intervals or verdict.outcome is Outcome.NOT_SHOWN:
        return verdict
    if tested is None and (alone := equivalence(figures, _limits(figures, original, rule))):
        tested = of_many(alone, compared)
    if tested is None:
        return verdict
    passed = verdict.outcome is Outcome.PASSED
    p = tested.p_equivalent if passed else tested.p_beyond
    words = f"tests of equivalence with retraining: {tested.words}, p = {p:.2g}, adjusted for the methods compared"
    return replace(verdict, settled=p < LEVEL or (verdict.settled and not passed), reasons=(*verdict.reasons, words))


def _judged(method: str, figures: Figures, original: Figures | None, rule: Rule, compared: int) -> Verdict:
    if reason := _no_measure(method, figures, rule):
        return Verdict(Outcome.NOT_JUDGED, (reason,), settled=False)
    if method in EXACT:
        which = "" if method == NAIVE else ", of its shards those that had learnt them"
        return Verdict(Outcome.REFERENCE, (f"retrained from scratch without the recordings{which}",))
    if method == ORIGINAL:
        return Verdict(Outcome.UNTOUCHED, ("still holds the recordings",))
    limits = _limits(figures, original, rule)
    readings = [found for limit in limits.values() if (found := read(limit, figures)) is not None]
    facts = [(reading.side, reading.fact) for reading in readings if reading.fact]
    facts += _groups(figures, rule)
    if not any(side is Side.LOST for side, _ in facts):
        facts += _not_recovered(figures)
    # Damage can be seen without a measure of forgetting.
    damaged = any(side is Side.LOST for side, _ in facts)
    if not damaged and (lacking := _unmeasured(figures)):
        return Verdict(Outcome.NOT_JUDGED, (lacking,), settled=False)
    if not damaged and original and (alike := _alike(original, limits)):
        return Verdict(Outcome.NOT_JUDGED, (alike,), settled=False)
    if facts:
        return _failed(facts, settled=True)
    if beyond := [(reading.side, reading.estimate) for reading in readings if reading.estimate]:
        return _failed(beyond, settled=False)
    shown, words = _forgotten(figures, original or {}, limits, compared)
    if not shown:
        return Verdict(Outcome.NOT_SHOWN, (words,), settled=False, compared=compared)
    aside = [reading.words for reading in readings if reading.weak]
    within = "every figure lies within the rule's tolerances"
    if aside:
        every = "nothing" if len(aside) == len(readings) else "no other figure"
        within = f"so few recordings do not carry {', '.join(aside)}; {every} lies beyond the rule's tolerances"
    reasons = (within, words)
    settled = all(reading.held for reading in readings)
    return Verdict(Outcome.PASSED, reasons, settled, compared)


def _failed(found: Sequence[tuple[Side, str]], settled: bool) -> Verdict:
    """The gravest outcome of some violations, with all of them as reasons."""
    order = list(OF_SIDE)
    ranked = sorted(found, key=lambda violation: order.index(violation[0]))
    return Verdict(OF_SIDE[ranked[0][0]], tuple(reason for _, reason in ranked), settled)


def _share(figures: Figures) -> float:
    """The largest class's share of the recordings; 0 where it was not recorded."""
    return figures[SHARE].mean if SHARE in figures else 0.0


def _no_measure(method: str, figures: Figures, rule: Rule) -> str:
    """Why naive is no measure for a method, or an empty text."""
    if method not in EXACT and "gap/forget_accuracy" not in figures:
        return _unmeasured(figures) or "there is no retrained model (naive) to compare with"
    own, gap, share = figures.get("remain/accuracy"), figures.get("gap/remain_accuracy"), _share(figures)
    # A method's own accuracy less its difference is naive's; naive has no difference.
    learned = None if own is None else own.mean - (gap.mean if gap else 0.0)
    if learned is not None and learned - share < rule.works * (1 - share):
        largest = f", the largest class being {percent(share)} of them" if share else ""
        return (
            f"the retrained model (naive) recognises only {percent(learned)} of the recordings it was trained on"
            f"{largest}: train longer or with another recipe"
        )
    of_seeds = figures.get(LEARNED)
    if of_seeds is not None and of_seeds.mean < 1:
        return (
            f"retraining (naive) failed on {round((1 - of_seeds.mean) * of_seeds.n)} of {of_seeds.n} seeds, on which "
            "it has learned less than half of what the original has: leave these seeds out or train longer"
        )
    return ""


def _unmeasured(figures: Figures) -> str:
    """The seeds whose runs lack what the rule needs, and the way out, or an empty text."""
    measured = figures.get(MEASURED)
    if measured is None or measured.mean == 1:
        return ""
    seeds = ", ".join(str(seed) for seed, value in measured.by_seed.items() if not value)
    return (
        f"the runs of seeds {seeds} lack differences from naive or their errors, as those of earlier versions do: run "
        f"`{command('unlearn')}` again with the same request"
    )


def _limits(figures: Figures, original: Figures | None, rule: Rule) -> dict[str, Limit]:
    """Figure → what is allowed of its difference from naive."""
    share = _share(figures)
    own = original.get("gap/forget_accuracy") if original else None
    kept, tolerance = rule.kept * (1 - share), rule.forget_tolerance(own.mean if own else None, share)
    return {
        "remain_accuracy": Limit("remain_accuracy", "remain accuracy", kept, one_sided=True),
        "test_accuracy": Limit("test_accuracy", "test accuracy", kept, one_sided=True),
        "forget_accuracy": Limit("forget_accuracy", WITNESSES["forget_accuracy"], tolerance),
        "mia_auc": Limit("mia_auc", WITNESSES["mia_auc"], rule.mia, is_share=False),
    }


def _groups(figures: Figures, rule: Rule) -> list[tuple[Side, str]]:
    """The worst class and the worst other speaker, where a seed's model has surely lost more than is allowed."""
    found = []
    for kind in ("class", "speaker"):
        gaps, highs = figures.get(f"worst/{kind}_gap"), figures.get(f"worst/{kind}_high")
        if gaps is None or highs is None:
            continue
        lost = {seed: gap for seed, gap in gaps.by_seed.items() if highs.by_seed.get(seed, 0.0) < -rule.group}
        if lost:
            seed = min(lost, key=lambda of: lost[of])
            of = "one class" if kind == "class" else "one other speaker"
            found.append(
                (
                    Side.LOST,
                    f"on seed {seed} accuracy on the remaining recordings of {of} (tag worst_{kind} of the run) is "
                    f"{points(-lost[seed])} below naive's, surely more than {points(rule.group)}",
                )
            )
    return found


def _not_recovered(figures: Figures) -> list[tuple[Side, str]]:
    gaps = figures["gap/remain_accuracy"].by_seed if "gap/remain_accuracy" in figures else {}
    lost = {seed: gap for seed, gap in gaps.items() if gap < -RECOVERY_TOLERANCE}
    if not lost:
        return []
    seed = min(lost, key=lambda of: lost[of])
    return [(Side.LOST, f"seed {seed} has not recovered: remain accuracy is {points(-lost[seed])} below naive's")]


def _alike(original: Figures, limits: dict[str, Limit]) -> str:
    """Why an untouched model cannot be told from an unlearned one, or an empty text."""
    forget, auc = original.get("gap/forget_accuracy"), original.get("gap/mia_auc")
    if forget is None or forget.mean > limits["forget_accuracy"].allowed:
        return ""
    if auc is not None and auc.mean > limits["mia_auc"].allowed:
        return ""
    attack = "" if auc is None else f", AUC of the membership attack {auc.mean:+.3f}"
    return (
        f"the original itself knows the recordings better than naive (forget accuracy {100 * forget.mean:+.1f} points"
        f"{attack}) by no more than the rule allows, so that an unlearned model cannot be told from an untouched one; "
        "a retrained one (naive) needs no such proof"
    )


def _forgotten(figures: Figures, original: Figures, limits: dict[str, Limit], compared: int) -> tuple[bool, str]:
    """Whether a figure shows that the model is nearer to naive than to the original, and which.

    It has to lie within its limit by its estimate: one that is set aside outside of it shows nothing.
    The figures that could show it share the doubt, as do the methods compared (Bonferroni).
    """
    known = {figure: before for figure in WITNESSES if (before := original.get(f"gap/{figure}")) is not None}
    witnesses = {figure: before for figure, before in known.items() if before.mean > limits[figure].allowed}
    among, tried = f" at {100 * DOUBT:.0f} % over {compared} methods" if compared > 1 else "", []
    for figure, before in witnesses.items():
        alone, found = (
            from_half_way(figures, original, figure, 1 - DOUBT / (n * len(witnesses))) for n in (1, compared)
        )
        if alone is None or found is None:
            continue
        limit, own = limits[figure], figures[f"gap/{figure}"].mean
        half = "" if alone.half is None else f", half way known to ± {limit.number(alone.half)}"
        if found.half is not None and compared > 1:  # the number that is told of the method by itself stands first
            half += f" by itself, to ± {limit.number(found.half)} as one of {compared} methods"
        words = f"{limit.words} {limit.signed(own)} from naive's, the original's {limit.signed(before.mean)}{half}"
        if found.half is not None and found.mean + found.half < 0 and abs(own) <= limit.allowed:
            return True, f"it has surely forgotten{among}: {words}"
        tried.append(words)
    return False, f"nothing shows{among} that it has forgotten: {'; '.join(tried) or 'no figure of the original'}"


def verdicts(long: pd.DataFrame, methods: Sequence[str], rule: Rule = RULE, compared: int = 1) -> dict[str, Verdict]:
    """The verdict on every method of one cell, each by itself, or as one of so many `compared`."""
    figures, original = {method: figures_of(long, method) for method in methods}, figures_of(long, ORIGINAL) or None
    tested = _tests(figures, original, rule)
    return {method: judge(method, own, original, rule, compared, tested.get(method)) for method, own in figures.items()}


def tests(long: pd.DataFrame, methods: Sequence[str], rule: Rule = RULE) -> dict[str, Equivalence]:
    """The tests of equivalence with retraining of one cell's methods, adjusted for all of them; empty for few seeds."""
    return _tests({method: figures_of(long, method) for method in methods}, figures_of(long, ORIGINAL) or None, rule)


def _tests(figures: Mapping[str, Figures], original: Figures | None, rule: Rule) -> dict[str, Equivalence]:
    alone = {
        method: found
        for method, own in figures.items()
        if method not in (*EXACT, ORIGINAL) and (found := equivalence(own, _limits(own, original, rule)))
    }
    return adjusted(alone)


def verdict_words(long: pd.DataFrame, methods: Sequence[str]) -> dict[str, str]:
    """The verdicts as a table has them: the outcome's word, with a ? where an interval could decide otherwise."""
    judged = verdicts(long, methods)
    return {method: verdict.outcome.value + "?" * verdict.open for method, verdict in judged.items()}
