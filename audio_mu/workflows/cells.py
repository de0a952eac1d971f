"""One cell of the store as comparison, report and registration read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from audio_mu.audit.across_seeds import NO_AUDIT, AuditInput, CellAudit, StoredLogits, audit_cell
from audio_mu.audit.one_model import COMPARED, SHARE
from audio_mu.audit.population import RATES
from audio_mu.audit.references import references_of
from audio_mu.config.commands import command
from audio_mu.errors import UserError, first_of
from audio_mu.names import ADOPTED, EXACT_SHARDS, FLOOR, NAIVE, ORIGINAL, file_name, in_order
from audio_mu.printable import printable
from audio_mu.report import tables
from audio_mu.report.facts import sides_told
from audio_mu.report.html import Clip
from audio_mu.report.rule import LEARNED, MEASURED
from audio_mu.store import queries
from audio_mu.store.artifacts import Unreadable, read_csv, read_json, read_logits, told_of, unreadable
from audio_mu.store.failed import leave_out
from audio_mu.store.handle import Store
from audio_mu.store.queries import Finished
from audio_mu.store.references import read_all

OF_A_RUN = {
    "attack_run_id", "architecture", "base_version", "cell", "clips_digest", "dataset", "dataset_name", "pipeline",
    "repair", "request_hash", "speaker_confounded", "split",
}  # fmt: skip
FIGURES = {*(f"{name}/accuracy" for name in COMPARED), "mia/score"}
"""Tags and figures that every method's run has; one of an earlier version, or of another program, may lack some."""
CURVE_PREFIXES = ("epoch/", "prune/")
ABOUT, PER_CLIP, FORGET_LOSSES = "audit/audit.json", "audit/per_clip.csv", "losses/forget.csv"


@dataclass(frozen=True)
class CellRuns:
    """The newest finished run per method and seed of one cell."""

    id: str
    request: str
    runs: Mapping[tuple[str, int], Finished]

    @classmethod
    def from_runs(cls, found: Iterable[Finished]) -> CellRuns:
        """The cell of some runs that share it, the newest first.

        Raises `UserError` where a run's tags are none that `unlearn` writes.
        """
        newest = queries.newest_by(found, "method", "seed")
        for (method, seed), run in newest.items():
            if not (method.isidentifier() and seed.isdecimal() and "request" in run.tags):
                raise UserError(
                    f"run {run.name!r} ({run.id[:8]}) has method={method[:80]!r}, seed={seed[:80]!r} and "
                    f"request={run.tags.get('request', '')[:80]!r} for tags, which are none of ours: mend the tags, or "
                    "delete the run"
                )
        runs = {(method, int(seed)): run for (method, seed), run in newest.items()}
        tags = next(iter(runs.values())).tags
        return cls(tags["cell"], tags["request"], runs)

    @property
    def any_run(self) -> Finished:
        """The run that is asked for what all runs of the cell share."""
        return next(iter(self.runs.values()))

    @property
    def title(self) -> str:
        """Data, network and request, for headings."""
        tags = self.any_run.tags
        sides = sides_told(tags["split"], tags["dataset"], ADOPTED in tags)
        network = f"{tags['architecture']} on {tags['pipeline']}"
        return printable(f"{tags['dataset_name']}, {sides}, {network}, request {self.request}")

    @property
    def folder(self) -> str:
        """The name under which a comparison keeps the cell's figures and report."""
        return file_name(f"{self.request}-{self.id[:6]}")

    @property
    def methods(self) -> list[str]:
        """The methods in the order of tables."""
        return in_order({method for method, _ in self.runs})

    @property
    def rows(self) -> list[str]:
        """The methods, with the distances of retrained models to each other below naive."""
        known = self.methods
        after = known.index(NAIVE) + 1 if NAIVE in known else len(known)
        return [*known[:after], FLOOR, *known[after:]]

    def only(self, methods: Iterable[str]) -> CellRuns:
        """The cell with these methods alone."""
        wanted = {*methods}
        return CellRuns(self.id, self.request, {key: run for key, run in self.runs.items() if key[0] in wanted})

    def of(self, method: str) -> dict[int, Finished]:
        """Seed → run of a method, seeds rising."""
        return {seed: self.runs[of, seed] for of, seed in sorted(self.runs) if of == method}

    @property
    def seeds(self) -> list[int]:
        """Every seed that some method of the cell has, rising."""
        return sorted({seed for _, seed in self.runs})

    @property
    def not_learned(self) -> list[int]:
        """Seeds on which retraining failed though the same training with the forgotten recordings did not.

        It has learned less than half as much, counted from the largest class's share.
        """

        def learned(run: Finished) -> float:
            return run.metrics["remain/accuracy"] - run.metrics.get(SHARE, 0.0)

        naive, original = self.of(EXACT_SHARDS) | self.of(NAIVE), self.of(ORIGINAL)
        return [seed for seed, run in naive.items() if seed in original and learned(run) < learned(original[seed]) / 2]

    def values(self) -> pd.DataFrame:
        """Every metric of every run, and whether naive has learned: cell, request, method, metric, seed, value."""
        rows = [
            (self.id, self.request, method, metric, seed, value)
            for method in self.methods
            for (of, seed), run in self.runs.items()
            if of == method
            for metric, value in run.metrics.items()
            if not metric.startswith(CURVE_PREFIXES)
        ]
        failed, known = self.not_learned, (self.of(EXACT_SHARDS) | self.of(NAIVE)).keys() & self.of(ORIGINAL).keys()
        rows += [
            (self.id, self.request, method, LEARNED, seed, float(seed not in failed))
            for method in self.methods
            for seed in self.of(method)
            if seed in known
        ]
        rows += [
            (self.id, self.request, method, MEASURED, seed, float(is_measured(run, (ORIGINAL, seed) in self.runs)))
            for (method, seed), run in self.runs.items()
            if method not in (NAIVE, ORIGINAL) and (NAIVE, seed) in self.runs
        ]
        return pd.DataFrame(rows, columns=["cell", "request", "method", "metric", "seed", "value"])

    def long(self) -> pd.DataFrame:
        """The long table of this cell from the runs' own metrics."""
        return tables.long_table(self.values())


def is_measured(run: Finished, with_original: bool) -> bool:
    """Whether a run has its differences from naive, and from the original, and how sure they are."""
    figures = [f"{name}_accuracy" for name in COMPARED] + ["mia_auc"] * ("gap/mia_auc" in run.metrics)
    wanted = [f"{kind}/{figure}" for kind in ("gap", "error") for figure in figures]
    return run.metrics.keys() >= {*wanted, *(["error/half_forget_accuracy"] if with_original else [])}


def load_cell(store: Store, cell: str, everywhere: bool = False) -> CellRuns:
    """The finished runs of a cell, in this experiment or in all. Raises `UserError` where there are none."""
    if not (found := queries.find(store, {"stage": "unlearn", "role": "method", "cell": cell}, everywhere=everywhere)):
        raise UserError(f"no finished unlearning of cell={cell!r} in this experiment: run `{command('unlearn')}` first")
    return CellRuns.from_runs(found)


@dataclass(frozen=True)
class ComparedCell:
    """A cell in a comparison. `about`: the evidence that any of its runs logged. `n_left`: forget clips in its lists.

    `long`, `paired`: its rows of the long table and of the differences to naive. `damaged`: the runs that are left out
    because a part of them cannot be read, and why.
    """

    runs: CellRuns
    about: Mapping[str, Any]
    n_left: int
    audit: CellAudit
    long: pd.DataFrame
    paired: pd.DataFrame
    damaged: Sequence[str] = ()

    @property
    def erased(self) -> str:
        """The effect of an erasure on the cell, in words; empty where nothing is missing."""
        once = self.about["request"]["n_forget"]
        if self.n_left == once:
            return ""
        if not self.n_left:
            return (
                f"the {once} recordings of this request are erased: the figures are those logged before; audits "
                "across seeds, figures of losses and the report would need the recordings' lists and are left out"
            )
        return (
            f"{once - self.n_left} of the {once} recordings of this request are erased: audits across seeds "
            f"and figures of losses are of the {self.n_left} left, the other figures those logged before"
        )


def compare_cell(store: Store, runs: CellRuns) -> ComparedCell:
    """Average a cell over its seeds and audit it across them, from the logits that its runs have stored."""
    about = _about(store, runs.any_run)
    clips = read_csv(store, runs.any_run.id, PER_CLIP, usecols=["clip_id", "role"], dtype=str)
    n_left = int((clips["role"] == "forget").sum())
    if not n_left and len(read_logits(store, runs.any_run.id, "logits/forget.npz")["clip_id"]):
        raise unreadable(store, runs.any_run.id, PER_CLIP, "it has lost its rows")  # an erasure cuts both
    nonmembers = clips.loc[clips["role"] == "nonmember", "clip_id"].to_numpy(str)
    audit = audit_cell(_audit_input(store, runs, about, nonmembers)) if n_left else NO_AUDIT
    own = {"cell": runs.id, "request": runs.request}
    values = pd.concat([runs.values(), audit.by_seed.assign(**own)], ignore_index=True)
    long = pd.concat([tables.long_table(values), tables.whole_rows(audit.whole.assign(**own))], ignore_index=True)
    return ComparedCell(runs, about, n_left, audit, long, tables.paired_table(values))


def _about(store: Store, run: Finished) -> Mapping[str, Any]:
    """What a run logged of its cell. Raises `Unreadable` where something of it is missing."""
    about: Mapping[str, Any] = read_json(store, run.id, ABOUT)
    with told_of(store, run.id, ABOUT):
        int(about["request"]["n_forget"])
        for name in ("are", "n", "set", "speaker_confounded"):
            about["nonmembers"][name]
        for rate in RATES.values():
            about["population_attack"][rate]["value"], about["population_attack"][rate]["note"]
    return about


def _audit_input(store: Store, runs: CellRuns, about: Mapping[str, Any], nonmember_ids: np.ndarray) -> AuditInput:
    """The cell's logits as the audits read them, and the reference models that its attack models' run names."""
    nonmember_set, kind = about["nonmembers"]["set"], about["request"].get("kind", "")
    first: dict[str, np.ndarray] = {}

    def logits(run: Finished, name: str) -> dict[str, np.ndarray]:
        path = f"logits/{name}.npz"
        found = read_logits(store, run.id, path)
        ids = first.setdefault(name, found["clip_id"])
        if not np.array_equal(ids, found["clip_id"]):
            (has, fewer), (most, other) = sorted([(len(found["clip_id"]), run.id), (len(ids), runs.any_run.id)])
            if has == most:  # nothing says which
                fewer, other = run.id, runs.any_run.id
            raise unreadable(store, fewer, path, f"it has {has} recordings, others than the {most} of run {other}")
        return found

    def arrays(run: Finished) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        forget = logits(run, "forget")
        if not len(nonmember_ids):
            return forget, {name: values[:0] for name, values in forget.items()}
        held_out = logits(run, nonmember_set)
        fair = np.isin(held_out["clip_id"], nonmember_ids)
        return forget, {name: values[fair] for name, values in held_out.items()}

    def read(method: str, seed: int) -> StoredLogits:
        forget, nonmembers = arrays(runs.runs[method, seed])
        return StoredLogits(forget["logits"], nonmembers["logits"])

    def read_set(method: str, seed: int, name: str) -> tuple[np.ndarray, np.ndarray]:
        found = logits(runs.runs[method, seed], name)
        return found["logits"], found["label"]

    def people(name: str) -> list[str]:
        of = nonmember_set if name == "nonmembers" else name
        table = read_csv(store, runs.any_run.id, f"losses/{of}.csv", usecols=["clip_id", "speaker"], dtype=str)
        return table.loc[np.isin(table["clip_id"], nonmember_ids) | (of == name), "speaker"].fillna("").tolist()

    forget, nonmembers = arrays(runs.any_run)
    seeds = {method: list(runs.of(method)) for method in runs.methods}
    return AuditInput(
        forget["clip_id"].tolist(), forget["label"], nonmembers["label"], seeds, read, read_set, people,
        references_of(read_all(store, runs.any_run.tags["attack_run_id"])), nonmembers["clip_id"].tolist(), kind,
    )  # fmt: skip


@dataclass(frozen=True)
class ClipLosses:
    """Losses under the models of a cell: method → a row for each recording, by its id, and a column for each seed.

    `clips`: the forget clips by their ids.
    """

    forget: Mapping[str, pd.DataFrame]
    nonmembers: Mapping[str, pd.DataFrame]
    clips: Mapping[str, Clip]

    @property
    def of_all_seeds(self) -> dict[str, np.ndarray]:
        """Method → the losses of the forget clips under all its models."""
        return {method: table.to_numpy().ravel() for method, table in self.forget.items()}

    @property
    def by_seed(self) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
        """Method → per seed the losses of the forget set and of the request's non-members, where it has some."""
        return {
            method: [(self.forget[method][seed].to_numpy(), table[seed].to_numpy()) for seed in table]
            for method, table in self.nonmembers.items()
            if len(table)
        }


def read_losses(store: Store, cell: CellRuns) -> ClipLosses:
    """The losses of the forget clips and of the non-members, from each run's table.

    Raises `Unreadable` where the runs' tables are not of the same recordings: one of them has lost some.
    """
    forget: dict[str, pd.DataFrame] = {}
    nonmembers: dict[str, pd.DataFrame] = {}
    wanted = {"usecols": ["clip_id", "role", "loss"], "index_col": "clip_id", "dtype": {"clip_id": str, "loss": float}}
    for method in cell.methods:
        read = {seed: read_csv(store, run.id, PER_CLIP, **wanted) for seed, run in cell.of(method).items()}
        for role, losses in (("forget", forget), ("nonmember", nonmembers)):
            losses[method] = pd.DataFrame({seed: t.loc[t["role"] == role, "loss"] for seed, t in read.items()})
    for losses in (forget, nonmembers):
        most = max((len(table) for table in losses.values()), default=0)
        for (method, seed), run in cell.runs.items():
            if (has := int(losses[method][seed].notna().sum())) < most:
                raise unreadable(store, run.id, PER_CLIP, f"it has {has} of the {most} recordings of its cell")
    return ClipLosses(forget, nonmembers, _clips(store, cell.any_run, next(iter(forget.values())).index))


def _clips(store: Store, run: Finished, expected: pd.Index) -> dict[str, Clip]:
    """The forget clips by their ids. Raises `Unreadable` where their list has lost some."""
    table = read_csv(store, run.id, FORGET_LOSSES, ("clip_id", "label", "speaker"), dtype=str)
    if set(table["clip_id"]) != set(expected):
        raise unreadable(store, run.id, FORGET_LOSSES, f"it has {len(table)} of {len(expected)} recordings")
    hashes = [column for column in ("audio_hash", "source_hash") if column in table]
    return {
        row["clip_id"]: Clip(row["clip_id"], row["label"], row["speaker"], frozenset(row[name] for name in hashes))
        for row in table.to_dict("records")
    }


def read_cell(store: Store, runs: CellRuns) -> tuple[ComparedCell, ClipLosses | None] | None:
    """A cell as it is compared, and its losses, where it has recordings left.

    A run with a damaged part is left out, by name, and the others are compared; None where none is left.
    """
    told: list[str] = []
    while runs.runs:
        try:
            for run in runs.runs.values():
                if lacking := [*(OF_A_RUN - run.tags.keys()), *(FIGURES - run.metrics.keys())]:
                    raise unreadable(store, run.id, "the tags and figures", f"without {first_of(sorted(lacking))}")
            compared = replace(compare_cell(store, runs), damaged=told)
            return compared, read_losses(store, runs) if compared.n_left else None
        except Unreadable as error:
            damaged = {key: run for key, run in runs.runs.items() if run.id == error.run_id}
            if not damaged:
                raise
            for run in damaged.values():
                told.append(leave_out(store, run, error))
            runs = CellRuns(runs.id, runs.request, {key: run for key, run in runs.runs.items() if key not in damaged})
    return None
