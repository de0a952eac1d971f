"""One cell of the store as comparison, report and registration read it."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from audio_mu.audit.across_seeds import FLOOR
from audio_mu.errors import UserError
from audio_mu.names import OTHERS, STUDY
from audio_mu.report import tables
from audio_mu.report.evidence import LEARNED
from audio_mu.store import queries
from audio_mu.store.artifacts import read_csv
from audio_mu.store.handle import Store
from audio_mu.store.queries import Finished

CURVE_PREFIXES = ("epoch/", "prune/")
ORDER = ("original", *STUDY, *OTHERS)


@dataclass(frozen=True)
class CellRuns:
    """The newest finished run per method and seed of one cell."""

    cell: str
    request: str
    runs: dict[tuple[str, str], Finished]

    @property
    def methods(self) -> list[str]:
        """Original and naive first, then the package's in their order, then the user's own."""
        present = {method for method, _ in self.runs}
        return [method for method in ORDER if method in present] + sorted(present - set(ORDER))

    @property
    def rows(self) -> list[str]:
        """The methods, with the distances of retrained models to each other below naive."""
        known = self.methods
        after = known.index("naive") + 1 if "naive" in known else len(known)
        return [*known[:after], FLOOR, *known[after:]]

    @property
    def split(self) -> str:
        """How its data were split; empty for runs that do not say."""
        return next(iter(self.runs.values())).tags.get("split", "")

    def seeds(self, method: str) -> list[int]:
        """The seeds that a method has, sorted."""
        return list(self.of(method))

    @property
    def any_run(self) -> Finished:
        """A run that says what all of the cell share. Raises `UserError` where none has its audit."""
        for run in self.runs.values():
            if "audit" in run.tags:
                return run
        raise UserError(
            f"the runs of request {self.request} (cell {self.cell}) carry no audit, an earlier version made them: run "
            "`mlflow run . -e unlearn -P force=true` with the same parameters first"
        )

    def of(self, method: str) -> dict[int, Finished]:
        """Seed → run of a method, seeds rising."""
        return {int(seed): self.runs[name, seed] for name, seed in sorted(self.runs, key=_seed) if name == method}

    @property
    def not_learned(self) -> list[int]:
        """Seeds on which retraining failed though the same training with the forgotten recordings did not."""
        naive, original = (self.of(method) for method in ("naive", "original"))
        return [
            seed
            for seed, run in naive.items()
            if seed in original and run.metrics["remain/accuracy"] < original[seed].metrics["remain/accuracy"] / 2
        ]

    def values(self) -> pd.DataFrame:
        """Every metric of every run, and whether naive has learned: cell, request, method, metric, seed, value."""
        rows = [
            (self.cell, self.request, method, metric, int(seed), value)
            for method in self.methods
            for (of, seed), run in self.runs.items()
            if of == method
            for metric, value in run.metrics.items()
            if not metric.startswith(CURVE_PREFIXES)
        ]
        failed, known = self.not_learned, self.of("naive").keys() & self.of("original").keys()
        rows += [
            (self.cell, self.request, method, LEARNED, seed, float(seed not in failed))
            for method in self.methods
            for seed in self.seeds(method)
            if seed in known
        ]
        return pd.DataFrame(rows, columns=["cell", "request", "method", "metric", "seed", "value"])

    def long(self) -> pd.DataFrame:
        """The long table of this cell from the runs' own metrics."""
        return tables.long_table(self.values())


def audited_long(store: Store, cell: CellRuns) -> pd.DataFrame:
    """The long table of a cell with the audits that take several seeds, where a comparison of these runs made them."""
    own = cell.long()
    compared = queries.newest(store, {"stage": "compare", "cell": cell.cell})
    if compared is None or compared.start_time < max(run.start_time for run in cell.runs.values()):
        return own
    seeds = " ".join(sorted({seed for _, seed in cell.runs}, key=int))
    table = read_csv(store, compared.id, "comparison.csv", na_values=[""])
    # Numbers of other seeds than this cell's say nothing about its models.
    audits = table[(table["cell"] == cell.cell) & ~table["metric"].isin(own["metric"])]
    return pd.concat([own, audits[audits["seeds"] == seeds]], ignore_index=True)


def _seed(key: tuple[str, str]) -> int:
    return int(key[1])


def load_cell(store: Store, cell: str) -> CellRuns:
    """The finished runs of a cell. Raises `UserError` where there are none."""
    found = queries.find(store, {"stage": "unlearn", "role": "method", "cell": cell})
    if not found:
        raise UserError(
            f"no finished unlearning of cell={cell!r} in this experiment: run `mlflow run . -e unlearn` first"
        )
    return CellRuns(cell, found[0].tags["request"], queries.newest_by(found, "method", "seed"))
