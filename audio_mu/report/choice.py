"""The choice of the method that goes into service: the best by the rule, or the one that was asked for."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from audio_mu.errors import UserError
from audio_mu.names import BEST, EXACT, EXACT_SHARDS, NAIVE, ORIGINAL
from audio_mu.report.facts import figures_of
from audio_mu.report.rule import RULE, Outcome, Rule, judge, verdicts


class NotAllowed(UserError):
    """The refusal to put a method into service, in a sentence; `reasons`: the figures that decided, in words."""

    def __init__(self, message: str, reasons: str) -> None:
        super().__init__(message)
        self.reasons = reasons


def candidates(methods: Sequence[str]) -> list[str]:
    """The methods that are compared with naive: not those that are retraining themselves, nor the original."""
    return [method for method in methods if method not in (*EXACT, ORIGINAL)]


def best_method(long: pd.DataFrame, methods: Sequence[str], rule: Rule = RULE) -> str | None:
    """`exact_shards` where it was run, which is retraining itself; else the method of highest mean ToW among those that
    meet the rule, or None.

    Each has to show that it has forgotten at a level divided by the number of methods (Bonferroni): of many methods
    that have forgotten nothing one looks by chance as if it had.
    """
    tried = candidates(methods)
    if EXACT_SHARDS in methods and judge(EXACT_SHARDS, figures_of(long, EXACT_SHARDS), rule=rule).passed:
        return EXACT_SHARDS
    judged = verdicts(long, tried, rule, max(1, len(tried)))
    return closest(long, [method for method, verdict in judged.items() if verdict.outcome is Outcome.PASSED])


def closest(long: pd.DataFrame, methods: Sequence[str]) -> str | None:
    """The method of highest mean ToW, the first of equals, whether it meets the rule or not."""
    scores = {m: figures_of(long, m).get("gap/tow") for m in candidates(methods)}
    known = {method: score.mean for method, score in scores.items() if score is not None}
    return max(known, key=lambda method: known[method]) if known else None


def by_distance(long: pd.DataFrame, methods: Sequence[str]) -> list[str]:
    """The methods by their distance to naive, which stands first: the highest ToW next, those without one last."""
    scores = {m: figures_of(long, m).get("gap/tow") for m in methods}

    def rank(method: str) -> tuple[bool, float]:
        score = scores[method]
        return method != NAIVE, 1.0 if score is None else -score.mean

    return sorted(methods, key=rank)


def allowed_method(asked: str, long: pd.DataFrame, methods: Sequence[str]) -> str:
    """The method to register. Raises `NotAllowed` where no method, or not the named one, meets the rule."""
    if asked == BEST:
        if (found := best_method(long, methods)) is not None:
            return found
        tried = candidates(methods)
        judged, words = closest(long, tried), f"no method meets the rule, of {len(tried)} compared"
        verdict = verdicts(long, [judged], compared=len(tried))[judged] if judged else None
    else:
        judged, verdict = asked, verdicts(long, [asked])[asked]
        words = f"{asked} does not meet the rule (docs/serving.md)"
        if verdict.passed:
            return asked
    if NAIVE not in methods:
        words, reasons = "there is no retrained model (naive) to compare with", ""
    elif verdict is None:
        reasons = ""
    else:
        words += f"; highest ToW: {judged}, {verdict.outcome.value}" if asked == BEST else f", {verdict.outcome.value}"
        reasons = f"{judged}, {verdict.outcome.value}: {'; '.join(verdict.reasons)}"
    raise NotAllowed(f"register={asked!r} is refused: {words}", reasons)


def naive_is_left(asked: str, long: pd.DataFrame) -> bool:
    """Whether the retrained model could go into service in place of what was refused."""
    naive = figures_of(long, NAIVE)
    return asked != NAIVE and bool(naive) and judge(NAIVE, naive).passed
