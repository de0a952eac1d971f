"""The requests that a registered model has answered one after another, and what is left of each along the way."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from audio_mu.errors import UserError
from audio_mu.names import NAIVE, ORIGINAL
from audio_mu.requests.ledger import Ledger
from audio_mu.store.handle import Store
from audio_mu.store.queries import Finished
from audio_mu.workflows.cells import load_cell

FIRST = ("position", "request", "method", "in_service", "n")


def chain_table(store: Store, ledger: Ledger, model: str) -> pd.DataFrame:
    """One row per answered request, in order, and method of its cell; empty for a model that has answered none.

    Columns: position, request, method, in_service (its models were registered), n (seeds), then accuracies, means
    over the seeds that the answer registered: `forget/…`, `earlier-<request>/…`, `test/…`, the same of naive as
    `naive/…`, and `original/test/accuracy`, the accuracy that the request started from. All from logged metrics.
    """
    rows = []
    for position, entry in enumerate(ledger.of_model(model), start=1):
        answer = entry.answers[model]
        try:
            cell = load_cell(store, answer.cell, everywhere=True)
        except UserError:  # its runs were deleted from the store: the position stays empty
            continue
        naive, original = _means(cell.of(NAIVE), answer.runs), _means(cell.of(ORIGINAL), answer.runs)
        for method in cell.methods:
            own = _means(cell.of(method), answer.runs)
            if method in (NAIVE, ORIGINAL) and method != answer.method:
                continue
            beside = {f"{NAIVE}/{name}": naive[name] for name in own if name in naive and method != NAIVE}
            about = (position, entry.request, method, method == answer.method, len(answer.runs))
            start = {"original/test/accuracy": original.get("test/accuracy", np.nan)}
            rows.append({**dict(zip(FIRST, about)), **own, **beside, **start})
    table = pd.DataFrame(rows, columns=None if rows else list(FIRST))
    figures = [name for name in table if name not in FIRST]
    return table[[*FIRST, *sorted(figures, key=_order)]]


def _means(runs: Mapping[int, Finished], seeds: Mapping[str, str]) -> dict[str, float]:
    """Accuracy on the forget set, on earlier requests and on the test set, over the seeds."""
    wanted = [run.metrics for seed, run in runs.items() if str(seed) in seeds]
    names = {name for metrics in wanted for name in metrics if _shown(name)}
    return {name: float(np.mean([metrics[name] for metrics in wanted if name in metrics])) for name in names}


def _order(column: str) -> tuple[int, str]:
    """Forget, earlier requests, test; then the same of naive; then the original's."""
    words = column.split("/")
    whose = {NAIVE: 10, ORIGINAL: 20}.get(words[0], 0)
    return whose + {"forget": 0, "test": 2}.get(words[-2], 1), column


def _shown(metric: str) -> bool:
    of, _, figure = metric.partition("/")
    return figure == "accuracy" and (of in ("forget", "test") or of.startswith("earlier-"))
