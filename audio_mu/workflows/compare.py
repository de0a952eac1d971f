"""Query the store, average the seeds within each cell, audit across seeds, and show the methods side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import pandas as pd

from audio_mu.audit.across_seeds import NO_AUDIT, Cell, CellAudit, StoredLogits, audit_cell
from audio_mu.audit.one_model import CONFOUNDED, few_clips
from audio_mu.config import Config
from audio_mu.errors import UserError
from audio_mu.progress import say
from audio_mu.report import figures, tables
from audio_mu.report.published import published, published_table
from audio_mu.requests.ledger import read_ledger
from audio_mu.store import queries
from audio_mu.store.artifacts import read_csv, read_json, read_npz
from audio_mu.store.handle import Store
from audio_mu.store.queries import Finished
from audio_mu.store.runs import Run
from audio_mu.workflows.cells import CellRuns
from audio_mu.workflows.gather import title_of, write_report
from audio_mu.workflows.request_history import chain_table
from audio_mu.workflows.stage import base_tags, stage_run

UNLEARNED = {"stage": "unlearn", "role": "method"}
CELLS_OF_RANKING = 3
WHOLE, TABLE = "whole", "table"
SCREEN = (WHOLE, TABLE, TABLE, TABLE)
"""What of each cell is printed, the newest first: everything, its table, nothing."""
NETWORK_TAGS = ("dataset_name", "pipeline", "architecture")
POOL = "ranked.csv"
POOLED = [*NETWORK_TAGS, "request", "cell", "method", "metric", "mean"]


def compare(config: Config, store: Store, parent: Run | None = None, cell: str | None = None) -> pd.DataFrame:
    """Compare the methods of every cell of this data set and network, or of one cell; return the long table."""
    wanted = {**UNLEARNED, **base_tags(config)} | ({"cell": cell} if cell else {})
    cells = _cells(queries.find(store, wanted))
    if not cells:
        raise UserError(
            f"no finished unlearning of {config.registered_model} in this experiment: run `mlflow run . -e unlearn` "
            "first, with the same dataset, pipeline and architecture"
        )
    chain = chain_table(store, read_ledger(store, config.data.label), config.registered_model)
    kept = {runs.cell: _kept(store, runs) for runs in cells}
    audits = {runs.cell: audit_cell(_stored(store, runs)) if kept[runs.cell].now else NO_AUDIT for runs in cells}
    values = pd.concat([_values(runs, audits[runs.cell]) for runs in cells], ignore_index=True)
    whole = pd.concat([_whole(runs, audits[runs.cell]) for runs in cells], ignore_index=True)
    long = pd.concat([tables.long_table(values), tables.whole_rows(whole)], ignore_index=True)
    paired = tables.paired_table(values)
    with stage_run(store, parent, "compare", config, {"cell": cells[0].cell, "request": cells[0].request}) as run:
        run.csv("comparison.csv", long)
        run.csv("paired.csv", paired)
        texts = [
            _show(
                store, run, config, runs, audits[runs.cell], kept[runs.cell], long[long["cell"] == runs.cell],
                paired[paired["cell"] == runs.cell], on_screen=on_screen,
            )
            for runs, on_screen in zip_longest(cells, SCREEN[: len(cells)], fillvalue="")
        ]  # fmt: skip
        if len(cells) > 1:
            left = len(cells) - len(SCREEN)
            more = f" and {left} earlier requests" if left > 0 else ""
            say(f"\nnotes and audits of earlier requests{more}: {run.address('comparison.md')}")
        ranked = _ranking(store, run, config, cells[0], long)
        run.text("comparison.md", "\n".join([*texts, ranked, _chained(run, chain)]))
        first = long[long["cell"] == cells[0].cell]
        run.metrics({f"{row.method}/{row.metric}": row.mean for row in first.itertuples()})
        reported = next((runs for runs in cells if kept[runs.cell].now), None)
        if reported is None:
            say("no report: the recordings of these requests are erased")
        else:
            notes = _notes(store, config, reported, kept[reported.cell])
            write_report(store, run, config, reported, long, notes, tables.chain_shown(chain))
    return long


@dataclass(frozen=True)
class Kept:
    """How many of a cell's forget clips its lists still name, and how many there were."""

    now: int
    once: int

    @property
    def note(self) -> str:
        """What an erasure has taken, in words; empty where nothing is missing."""
        if self.now == self.once:
            return ""
        if not self.now:
            return (
                f"the {self.once} recordings of this request are erased: the figures are those logged before; audits "
                "across seeds, figures of losses and the report would need the recordings' lists and are left out"
            )
        return (
            f"{self.once - self.now} of the {self.once} recordings of this request are erased: audits across seeds "
            f"and figures of losses are of the {self.now} left, the other figures those logged before"
        )


def _kept(store: Store, cell: CellRuns) -> Kept:
    about = read_json(store, cell.any_run.id, "audit/audit.json")
    return Kept(len(read_csv(store, cell.any_run.id, "losses/forget.csv")), about["request"]["n_forget"])


def _chained(run: Run, chain: pd.DataFrame) -> str:
    """The model's answered requests into the run and on the screen, as Markdown; empty where there are none."""
    if chain.empty:
        return ""
    run.csv("chain.csv", chain)
    text = f"{tables.markdown(tables.chain_shown(chain))}\n{tables.CHAIN_EXPLANATION}\n"
    say(f"\nrequests one after another\n\n{text}")
    return f"## Requests one after another\n\n{text}"


def _cells(found: list[Finished]) -> list[CellRuns]:
    by_cell: dict[str, list[Finished]] = {}
    for run in found:
        by_cell.setdefault(run.tags["cell"], []).append(run)
    return [
        CellRuns(cell, runs[0].tags["request"], queries.newest_by(runs, "method", "seed"))
        for cell, runs in by_cell.items()
    ]


def _stored(store: Store, cell: CellRuns) -> Cell:
    """The cell's logits as the audits read them; which clips are non-members is in any of its runs."""
    about = read_json(store, cell.any_run.id, "audit/audit.json")
    clips = read_csv(store, cell.any_run.id, "audit/per_clip.csv")
    nonmember_ids = clips.loc[clips["role"] == "nonmember", "clip_id"].to_numpy(str)

    def forget_and_nonmembers(run: Finished) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        forget = read_npz(store, run.id, "logits/forget.npz")
        if not len(nonmember_ids):
            return forget, {name: values[:0] for name, values in forget.items()}
        held_out = read_npz(store, run.id, f"logits/{about['nonmembers']['set']}.npz")
        fair = np.isin(held_out["clip_id"], nonmember_ids)
        return forget, {name: values[fair] for name, values in held_out.items()}

    def read(method: str, seed: int) -> StoredLogits:
        forget, nonmembers = forget_and_nonmembers(cell.runs[method, str(seed)])
        return StoredLogits(forget["logits"], nonmembers["logits"])

    forget, nonmembers = forget_and_nonmembers(cell.any_run)
    seeds = {method: cell.seeds(method) for method in cell.methods}
    return Cell(forget["clip_id"].tolist(), forget["label"], nonmembers["label"], seeds, read)


def _values(cell: CellRuns, audit: CellAudit) -> pd.DataFrame:
    by_seed = audit.by_seed.assign(cell=cell.cell, request=cell.request)
    return pd.concat([cell.values(), by_seed], ignore_index=True)


def _whole(cell: CellRuns, audit: CellAudit) -> pd.DataFrame:
    return audit.whole.assign(cell=cell.cell, request=cell.request)


def _show(store: Store, run: Run, config: Config, cell: CellRuns, audit: CellAudit, kept: Kept, long: pd.DataFrame,
          paired: pd.DataFrame, on_screen: str) -> str:  # fmt: skip
    """Figures and per-clip table of one cell into the run; its tables as Markdown, and on the screen by `SCREEN`."""
    title = title_of(config, cell)
    table = tables.markdown(tables.wide_table(long, cell.rows))
    audited = tables.markdown(tables.wide_table(long, cell.rows, tables.AUDITED))
    notes = [*_notes(store, config, cell, kept), *audit.notes]
    in_the_study = _published(config, cell.request)
    heading = f"\n{title} (cell {cell.cell})\n\n{table}"
    erased = [f"note: {kept.note}"] if kept.note else []
    whole = [
        *(f"note: {note}" for note in notes),
        f"{heading}\n{tables.EXPLANATION}\n\n{audited}\n{tables.AUDIT_EXPLANATION}",
        *([f"\n{in_the_study}"] if in_the_study else []),
    ]
    for line in {WHOLE: whole, TABLE: [*erased, heading]}.get(on_screen, []):
        say(line)
    folder = f"{cell.request}-{cell.cell[:6]}"
    drawn = {
        "accuracy": figures.accuracy_figure(long, cell.methods, title),
        "mia": figures.mia_figure(long, cell.methods, title),
    }
    if kept.now:
        drawn["forget_loss"] = figures.forget_loss_figure(_forget_losses(store, cell), cell.methods, title)
    for name, figure in drawn.items():
        run.bytes(f"figures/{folder}/{name}.png", figures.as_png(figure))
    if len(audit.per_clip):
        run.csv(f"audits/{folder}/per_clip.csv", audit.per_clip.round(6))
    parts = [
        f"## {title}\n\ncell {cell.cell}\n\n{table}\n{tables.EXPLANATION}\n",
        _listed(notes),
        f"### Audits\n\n{audited}\n{tables.AUDIT_EXPLANATION}\n",
        _listed(f"{method}: {_reading(cell, audit, method)}" for method in cell.methods),
        _paired(cell, paired),
        in_the_study,
    ]
    return "\n".join(part for part in parts if part)


def _published(config: Config, request: str) -> str:
    """The study's own figures for this data set, network and request, where it published any."""
    rows = published(config.data.dataset, config.data.pipeline, config.training.architecture, request)
    if rows.empty:
        return ""
    table = tables.markdown(published_table(rows))
    notes = "".join(f"- {note}\n" for note in rows["note"].unique())
    return f"### The study's published figures (its recordings, its runs)\n\n{table}\n{notes}"


def _listed(sentences: Iterable[str]) -> str:
    return "".join(f"- {sentence}\n" for sentence in sentences)


def _reading(cell: CellRuns, audit: CellAudit, method: str) -> str:
    """What all of a method's audits say together."""
    metrics = [run.metrics for (of, _), run in cell.runs.items() if of == method]
    aucs = [values["mia/auc"] for values in metrics if "mia/auc" in values]
    words = []
    if aucs:
        seen = sum(values.get("mia/auc_low", 0.0) > 0.5 for values in metrics)
        over = sum(values.get("mia/auc_high", 1.0) < 0.5 for values in metrics)
        words.append(
            f"population attack AUC {np.mean(aucs):.3f}, surely above 0.5 on {seen} and below it on {over} of "
            f"{len(aucs)} seeds"
        )
        naive = [run.metrics["mia/auc"] for (of, _), run in cell.runs.items() if of == "naive"]
        if naive and method != "naive":
            words[-1] += f", naive's AUC {np.mean(naive):.3f}"
    else:
        words.append("no population attack: there are no non-members")
    return "; ".join([*words, *([audit.readings[method]] if method in audit.readings else [])])


def _paired(cell: CellRuns, paired: pd.DataFrame) -> str:
    if not len(paired):
        return ""
    table = tables.markdown(tables.paired_shown(paired, cell.methods))
    n = int(paired["n"].max())
    floor = float(paired["p_floor"].min())
    verdict = (
        ": no difference of this cell can be significant at 5 % without assuming normality" if floor > 0.05 else ""
    )
    return (
        f"### Differences to naive, paired by seed\n\n{table}\nDifference [95 % t interval], p of the exact sign-flip "
        f"test. With {n} pairs no exact p can go below {floor:.4g}{verdict}; the intervals rest "
        "on normality. Every metric is in paired.csv.\n"
    )


def _notes(store: Store, config: Config, cell: CellRuns, kept: Kept) -> list[str]:
    seeds = {method: set(cell.seeds(method)) for method in cell.methods}
    # A seed that any method has is expected of every method, as are the configured ones.
    expected = set(config.training.seeds) | set().union(*seeds.values())
    notes = [
        f"{method} has no finished run for seeds {sorted(expected - have)}: its mean is over {sorted(have)} only"
        for method, have in seeds.items()
        if expected - have
    ]
    failed = sorted({of for (of, _), run in cell.runs.items() if run.tags.get("not_recovered") == "true"})
    if failed:
        notes.append(f"not recovered (remain accuracy more than 0.1 below naive's) on at least one seed: {failed}")
    if lost := cell.not_learned:
        notes.append(
            f"naive of seeds {lost} has learned less than half of what the original has: a retrained model that failed "
            "is no reference, and the means over the seeds rest on it: nothing is judged; leave these seeds out or "
            "train longer"
        )
    return [*([kept.note] if kept.note else []), *notes, *_audit_notes(store, config, cell, seeds)]


def _audit_notes(store: Store, config: Config, cell: CellRuns, seeds: Mapping[str, set[int]]) -> list[str]:
    """What the membership figures of this cell rest on."""
    about = read_json(store, cell.any_run.id, "audit/audit.json")
    n_forget = about["request"]["n_forget"]
    notes = [f"the forget set has {n_forget} recordings{warning}"] if (warning := few_clips(n_forget)) else []
    notes.append(f"non-members of the membership attacks: {about['nonmembers']['are']}")
    if not about["nonmembers"]["n"]:
        notes.append("the population attack is left out: against other clips it would measure speaker or class")
    elif about["nonmembers"]["speaker_confounded"]:
        notes.append(CONFOUNDED)
    rates = {"1 %": "tpr_at_fpr_1pct", "0.1 %": "tpr_at_fpr_01pct"}
    refused = {at: about["population_attack"][rate] for at, rate in rates.items()}
    notes += [
        f"true-positive rate at {at} false positives refused: {rate['note']}"
        for at, rate in refused.items()
        if rate["value"] is None and about["nonmembers"]["n"]
    ]
    attack = store.client.get_run(cell.any_run.tags["attack_run_id"]).data.metrics
    if attack.get("attack/at_chance", 0.0) > 0:
        notes.append(
            f"{attack['attack/at_chance']:.0%} of the attack models are at chance on clips that they were not trained "
            "on: the MIA score says little about membership here"
        )
    notes.append(
        "the attack models behind the MIA score were trained, as in the study, on the base models' losses of the "
        "training set, these recordings among it, and of most of the test set: the original's score and those of the "
        "test set are partly of clips that they know"
    )
    if config.data.dataset == "SyntheticDigits":
        notes.append(
            "SyntheticDigits: takes of one voice and digit are nearly identical, so that held-out clips are almost "
            "copies of trained ones; membership figures prove little here"
        )
    if "naive" not in seeds:
        notes.append(
            "no naive model in this cell: distances, gaps and the speed-up are left out. The evidence is one-sided: it "
            "shows what the attacks see in the unlearned model beside the original, not whether retraining would have "
            "given the same; an AUC at 0.5 means that these attacks found nothing, not that nothing is left"
        )
    return notes


def _ranking(store: Store, run: Run, config: Config, first: CellRuns, long: pd.DataFrame) -> str:
    """Friedman ranking of the first cell's methods over every network and request compared in this experiment.

    Of each network and request the newest comparison counts. Every comparison hands on what it ranks and all that
    the one before it knew, so that the time of the next does not grow with the store. Empty with fewer than three
    cells.
    """
    metrics = {name.strip("|") for name in tables.RANKED}
    network = {tag: base_tags(config)[tag] for tag in NETWORK_TAGS}
    own = [table[table["metric"].isin(metrics)].assign(**network) for table in _newest_cells(long).values()]
    pooled = pd.concat(own, ignore_index=True)[POOLED]
    earlier = queries.newest(store, {"stage": "compare", "pools": POOL})
    if earlier is not None:
        before, key = read_csv(store, earlier.id, POOL), [*NETWORK_TAGS, "request"]
        renewed = before.set_index(key).index.isin(pooled.set_index(key).index)
        pooled = pd.concat([pooled, before[~renewed]], ignore_index=True)
    run.csv(POOL, pooled)
    run.tags({"pools": POOL})
    compared = pooled[[*NETWORK_TAGS, "request"]].drop_duplicates()
    if len(compared) < CELLS_OF_RANKING:
        return ""
    methods = [method for method in first.methods if method not in tables.NOT_RANKED]
    named = _listed(" ".join(key) for key in compared.itertuples(index=False))
    return (
        f"## Ranking over cells\n\nFriedman's test over\n\n{named}\n"
        f"{tables.ranking_markdown(tables.ranking(pooled, methods))}"
    )


def _newest_cells(long: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Request → the rows of its first, which is the newest, cell."""
    chosen: dict[str, pd.DataFrame] = {}
    for _, table in long.groupby("cell", sort=False):
        chosen.setdefault(str(table["request"].iloc[0]), table)
    return chosen


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
