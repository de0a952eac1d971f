"""The last block of a command: what was asked, which methods come near naive, what to do next; a line each."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten

import pandas as pd

from audio_mu.errors import counted
from audio_mu.names import EXACT_SHARDS, NAIVE, ORIGINAL
from audio_mu.report.choice import candidates, closest
from audio_mu.report.facts import RequestFacts, figures_of, percent
from audio_mu.report.rule import Outcome, Verdict, verdicts

WIDTH = 100
"""Columns of a console; a command is as long as it has to be, on a line of its own."""


ERASE = "list what the store still holds of the recordings, to erase it"
"""The step after an answer."""


def one_line_of(text: str) -> str:
    """A sentence as far as a line of the console holds it."""
    return shorten(text, WIDTH, placeholder=" …")


def answer(long: pd.DataFrame, methods: Sequence[str], request: RequestFacts, step: str, command: str) -> list[str]:
    """The three lines, each of at most `WIDTH` characters, and the command of the third below it.

    long: the rows of one cell. step: what to do next, in words; command: how, empty where nothing is left to do.
    """
    lines = [_asked(long, request), f"near naive: {_near(long, methods)}", f"next: {step}{':' if command else ''}"]
    return [*map(one_line_of, lines), *([f"  {command}"] if command else [])]


def _asked(long: pd.DataFrame, request: RequestFacts) -> str:
    total = request.n_forget + request.n_remain
    figures = {who: figures_of(long, who).get("forget/accuracy") for who in (ORIGINAL, NAIVE)}
    known = ", ".join(f"{who} {percent(figure.mean)}" for who, figure in figures.items() if figure)
    recognised = f"; recognised: {known}" if known else ""
    return f"asked: forget {request.name}, {request.n_forget:,} of {counted(total, 'recording')}{recognised}"


def _near(long: pd.DataFrame, methods: Sequence[str]) -> str:
    if EXACT_SHARDS in methods:
        return f"{EXACT_SHARDS}, which is retraining itself"
    if NAIVE not in methods:
        return "not known, no model was retrained (naive)"
    tried = candidates(methods)
    if not tried:
        return "naive alone was run; it is the target itself"
    judged = verdicts(long, tried)
    passed = [method for method in tried if judged[method].outcome is Outcome.PASSED]
    if all(verdict.outcome is Outcome.NOT_JUDGED for verdict in judged.values()):
        return f"none is judged: {judged[tried[0]].reasons[0]}"
    if passed:
        named = ", ".join(f"{method} ({_settled(judged[method])})" for method in passed)
        return f"{len(passed)} of {len(tried)}: {named}"
    best = closest(long, tried)
    if best is None:
        return f"none of {len(tried)}"
    verdict = judged[best]
    return f"none of {len(tried)}; highest ToW: {best}, {verdict.outcome.value} ({_settled(verdict)})"


def _settled(verdict: Verdict) -> str:
    return "settled" if verdict.settled else "not settled"
