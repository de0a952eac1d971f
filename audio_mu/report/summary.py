"""What a reader of a report should know first: the request, its two yardsticks, and the verdicts, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from audio_mu.names import NAIVE, ORIGINAL
from audio_mu.report.choice import best_method, candidates
from audio_mu.report.facts import RequestFacts, exact_words, figures_of, interval_percent, percent, speed_words
from audio_mu.report.rule import FAILURES, RULE, Outcome, Rule, Verdict, verdicts


def summary(long: pd.DataFrame, methods: Sequence[str], request: RequestFacts, rule: Rule = RULE) -> list[str]:
    """The sentences of a summary, made from the figures of one cell: the answer first, then what it rests on."""
    lines = [_request_sentence(request), *_yardsticks(long)]
    exact = [f"{method}: {words}" for method in methods if (words := exact_words(figures_of(long, method)))]
    if NAIVE not in methods:
        no_measure = "No model was retrained (naive), so nothing says how much a method should forget: none is judged."
        return [*(exact or [no_measure]), *lines]
    tried = candidates(methods)
    judged = verdicts(long, tried, rule)
    if not tried:
        return [*(exact or ["No method was compared with naive, the retrained model."]), *lines]
    passed = [method for method in tried if judged[method].outcome is Outcome.PASSED]
    unjudged = [method for method in tried if judged[method].outcome is Outcome.NOT_JUDGED]
    if len(unjudged) == len(tried):
        return [*exact, f"No method is judged: {judged[unjudged[0]].reasons[0]}.", *lines]
    lines = [*_passed_sentences(long, passed, methods, judged), *lines]
    for outcome in FAILURES:
        failing = [f"{m} ({judged[m].reasons[0]})" for m in tried if judged[m].outcome is outcome]
        if failing:
            lines.append(f"{outcome.value.capitalize()}: {'; '.join(failing)}.")
    if unjudged:
        lines.append(f"Not judged: {_listed(unjudged)}, because {judged[unjudged[0]].reasons[0]}.")
    return [*exact, *lines, *_unsettled_sentence(judged)]


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


def _yardsticks(long: pd.DataFrame) -> list[str]:
    """What the original and the retrained model recognise, as far as the cell has them."""
    original, naive = (figures_of(long, method).get("forget/accuracy") for method in (ORIGINAL, NAIVE))
    untouched = f"The original model recognises {interval_percent(original)} of them" if original else ""
    if naive is None:
        return [f"{untouched}."] if untouched else []
    retrained = "retrained without them (naive, the target)"
    if untouched:
        return [f"{untouched}, the one {retrained} {interval_percent(naive)}."]
    return [f"A model {retrained} recognises {interval_percent(naive)} of them."]


def _passed_sentences(
    long: pd.DataFrame, passed: Sequence[str], methods: Sequence[str], judged: Mapping[str, Verdict]
) -> list[str]:
    """How many methods meet the rule, and the recommended one: what it costs and saves, and whether that is settled."""
    n = len(judged)
    if not passed:
        return [f"None of the {n} methods meets the rule: naive, the retrained model, is the answer that is left."]
    count = f"{len(passed)} of {n} methods {'meets' if len(passed) == 1 else 'meet'} the rule: {_listed(passed)}."
    best = best_method(long, methods)
    if best is None:
        return [f"None is recommended as the best of {n}: a choice among so many must be surer of forgetting.", count]
    return [_recommendation(long, best, judged[best].settled), count]


def _recommendation(long: pd.DataFrame, best: str, settled: bool) -> str:
    figures, original = figures_of(long, best), figures_of(long, ORIGINAL)
    words = [
        f"Recommended: {best}, the closest to retraining of those that meet the rule (ToW "
        f"{figures['gap/tow'].mean:.3f}, where 1 is the same accuracies as retraining)."
    ]
    own, before = figures.get("test/accuracy"), original.get("test/accuracy")
    if own and before:
        change = 100 * (own.mean - before.mean)
        words.append(f"Its test accuracy is {percent(own.mean)}, {change:+.1f} points from the original's.")
    if "time/speedup" in figures:
        words.append(f"It {speed_words(figures['time/speedup'])}.")
    words.append("This is settled." if settled else "This is not settled: other seeds could decide otherwise.")
    return " ".join(words)


def _unsettled_sentence(judged: Mapping[str, Verdict]) -> list[str]:
    unsettled = [method for method, verdict in judged.items() if not verdict.settled]
    if not unsettled:
        return []
    if len(unsettled) == len(judged):
        return ["No verdict is settled: intervals reach across the rule's limits."]
    return [f"Not settled, because an interval reaches across one of the rule's limits: {_listed(unsettled)}."]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
