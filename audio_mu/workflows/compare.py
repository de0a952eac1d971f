"""Query the store, average the seeds within each cell, and show the methods side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from audio_mu.config import Config
from audio_mu.errors import UserError
from audio_mu.progress import say
from audio_mu.report import figures, tables
from audio_mu.store import queries
from audio_mu.store.queries import Finished
from audio_mu.store.runs import Run, Store, read_csv
from audio_mu.unlearning import METHODS, STUDY
from audio_mu.workflows.prepare import base_tags, stage_run

CURVE_PREFIXES = ("epoch/", "prune/")
UNLEARNED = {"stage": "unlearn", "role": "method"}


@dataclass(frozen=True)
class CellRuns:
    """The newest finished run per method and seed of one cell."""

    cell: str
    request: str
    runs: dict[tuple[str, str], Finished]

    @property
    def methods(self) -> list[str]:
        """Original and naive first, then in the registry's order."""
        order = ["original", *STUDY, *METHODS]
        present = {method for method, _ in self.runs}
        known = [method for method in dict.fromkeys(order) if method in present]
        return known + sorted(present - set(known))


def compare(config: Config, store: Store, parent: Run | None = None, cell: str | None = None) -> pd.DataFrame:
    """Compare the methods of every cell of this data set and network, or of one cell; return the long table."""
    resolved = config.resolved()
    wanted = {**UNLEARNED, **base_tags(resolved)} | ({"cell": cell} if cell else {})
    cells = _cells(queries.find(store, wanted))
    if not cells:
        raise UserError(
            f"no finished unlearning of {resolved.registered_model} in this experiment: run `mlflow run . -e unlearn` "
            "first, with the same dataset, pipeline and architecture"
        )
    long = tables.long_table(pd.concat([_values(runs) for runs in cells], ignore_index=True))
    with stage_run(store, parent, "compare", resolved, {"cell": cells[0].cell, "request": cells[0].request}) as run:
        run.csv("comparison.csv", long)
        texts = [_show(store, run, resolved, runs, long[long["cell"] == runs.cell]) for runs in cells]
        run.text("comparison.md", "\n".join(texts))
        run.note(texts[0])
        first = long[long["cell"] == cells[0].cell]
        run.metrics({f"{row.method}/{row.metric}": row.mean for row in first.itertuples()})
    return long


def _cells(found: list[Finished]) -> list[CellRuns]:
    by_cell: dict[str, list[Finished]] = {}
    for run in found:
        by_cell.setdefault(run.tags["cell"], []).append(run)
    return [
        CellRuns(cell, runs[0].tags["request"], queries.newest_by(runs, "method", "seed"))
        for cell, runs in by_cell.items()
    ]


def _values(cell: CellRuns) -> pd.DataFrame:
    rows = [
        (cell.cell, cell.request, method, metric, int(seed), value)
        for method in cell.methods
        for (of, seed), run in cell.runs.items()
        if of == method
        for metric, value in run.metrics.items()
        if not metric.startswith(CURVE_PREFIXES)
    ]
    return pd.DataFrame(rows, columns=["cell", "request", "method", "metric", "seed", "value"])


def _show(store: Store, run: Run, config: Config, cell: CellRuns, long: pd.DataFrame) -> str:
    """Figures of one cell into the run; its table on the screen and as Markdown."""
    title = f"{config.name} {config.pipeline} {config.architecture}, {cell.request}"
    table = tables.markdown(tables.wide_table(long, cell.methods))
    notes = _notes(config, cell)
    for note in notes:
        say(f"note: {note}")
    say(f"\n{title} (cell {cell.cell})\n\n{table}\n{tables.EXPLANATION}")
    drawn = {
        "accuracy": figures.accuracy_figure(long, cell.methods, title),
        "mia": figures.mia_figure(long, cell.methods, title),
        "forget_loss": figures.forget_loss_figure(_forget_losses(store, cell), cell.methods, title),
    }
    for name, figure in drawn.items():
        run.bytes(f"figures/{cell.request}-{cell.cell[:6]}/{name}.png", figures.as_png(figure))
    listed = "".join(f"- {note}\n" for note in notes)
    return f"## {title}\n\ncell {cell.cell}\n\n{table}\n{tables.EXPLANATION}\n\n{listed}"


def _notes(config: Config, cell: CellRuns) -> list[str]:
    seeds = {method: {int(seed) for of, seed in cell.runs if of == method} for method in cell.methods}
    # A seed that any method has is expected of every method, as are the configured ones.
    expected = set(config.seeds) | set().union(*seeds.values())
    notes = [
        f"{method} has no finished run for seeds {sorted(expected - have)}: its mean is over {sorted(have)} only"
        for method, have in seeds.items()
        if expected - have
    ]
    failed = sorted({of for (of, _), run in cell.runs.items() if run.tags.get("not_recovered") == "true"})
    if failed:
        notes.append(f"not recovered (remain accuracy more than 0.1 below naive's) on at least one seed: {failed}")
    if "naive" not in seeds:
        notes.append("no naive model in this cell: distances and gaps to it are left out")
    return notes


def _forget_losses(store: Store, cell: CellRuns) -> dict[str, np.ndarray]:
    return {
        method: np.concatenate(
            [
                read_csv(store, run.id, "losses/forget.csv")["loss"].to_numpy(float)
                for (of, _), run in cell.runs.items()
                if of == method
            ]
        )
        for method in cell.methods
    }
