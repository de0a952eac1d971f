"""Query the store, average the seeds within each cell, audit across seeds, and show the methods side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from audio_mu.audit.across_seeds import CellAudit
from audio_mu.audit.one_model import CONFOUNDED, few_clips
from audio_mu.audit.population import RATES
from audio_mu.config import Config
from audio_mu.config.commands import command, erasing
from audio_mu.erasure.in_service import tell_served
from audio_mu.errors import UserError
from audio_mu.names import NAIVE
from audio_mu.progress import say
from audio_mu.report import canvas, figures, tables
from audio_mu.report.answer import ERASE, WIDTH, one_line_of
from audio_mu.report.equivalence import tested_table
from audio_mu.report.paper import latex_table, rows_of_seeds
from audio_mu.report.papers import with_references
from audio_mu.report.published import published_markdown
from audio_mu.report.rule import tests, verdict_words
from audio_mu.requests.ledger import ERASED, Ledger, read_ledger
from audio_mu.store import queries
from audio_mu.store.artifacts import read_csv
from audio_mu.store.failed import REASON, still_failed
from audio_mu.store.handle import Store
from audio_mu.store.queries import Finished
from audio_mu.store.runs import Run
from audio_mu.workflows.cells import CellRuns, ClipLosses, ComparedCell, read_cell
from audio_mu.workflows.gather import tell_answer, write_report
from audio_mu.workflows.request_history import chain_table
from audio_mu.workflows.stage import base_tags, stage_run

METHOD_RUNS = {"stage": "unlearn", "role": "method"}
CELLS_OF_RANKING = 3
TABLES_ON_SCREEN = 3
"""After the newest cell, which is printed whole, so many cells are printed as tables; the files hold every cell."""
NETWORK_TAGS = ("dataset_name", "pipeline", "architecture")
POOL = "ranked.csv"
POOLED = [*NETWORK_TAGS, "request", "cell", "method", "metric", "mean"]


def compare(config: Config, store: Store, parent: Run | None = None, cell: str | None = None) -> pd.DataFrame:
    """Compare the methods of every cell of this data set and network, or of one cell; return the long table."""
    found = queries.find(store, {**METHOD_RUNS, **base_tags(config)} | ({"cell": cell} if cell else {}))
    if not found:
        raise UserError(
            f"no finished unlearning of {config.registered_model} in this experiment: run `{command('unlearn')}` first"
        )
    ledger = read_ledger(store, config.data.label)
    tell_served(store, ledger, config.data.label)
    chain = chain_table(store, ledger, config.registered_model)
    by_cell: dict[str, list[Finished]] = {}
    for finished in found:
        by_cell.setdefault(finished.tags["cell"], []).append(finished)
    read = [known for runs in by_cell.values() if (known := read_cell(store, CellRuns.from_runs(runs))) is not None]
    if not read:
        raise UserError(f"every run of {config.registered_model} has a part that cannot be read: the reasons are above")
    cells = [compared for compared, _ in read]
    newest = cells[0].runs
    long = pd.concat([compared.long for compared in cells], ignore_index=True)
    with stage_run(store, parent, "compare", config, {"cell": newest.id, "request": newest.request}) as run:
        run.csv("comparison.csv", long)
        run.csv("seeds.csv", rows_of_seeds(long))
        run.csv("paired.csv", pd.concat([compared.paired for compared in cells], ignore_index=True))
        tested = [tested_table(tests(own.long, own.runs.methods)).assign(cell=own.runs.id) for own in cells]
        if any(map(len, tested)):
            run.csv("equivalence.csv", pd.concat(tested, ignore_index=True))
        texts, report = [], ""
        for place, (compared, losses) in enumerate(read):
            notes = _notes(store, config, compared)
            texts.append(_show(run, config, compared, losses, notes, place))
            if losses is not None and not report:
                report = write_report(store, run, config.data, compared, losses, notes, tables.chain_shown(chain))
        say(tables.SHORT_EXPLANATION)
        left = max(len(cells) - 1 - TABLES_ON_SCREEN, 0)
        say(f"notes and audits whole{f', {left} earlier requests' * bool(left)}: {run.address('comparison.md')}")
        say(f"every figure, with its 95 % interval: {run.address('comparison.csv')}")
        say(f"for a paper: {run.address(f'paper/{newest.folder}.tex')} (LaTeX), and seeds.csv (a row per seed)")
        ranked = _ranking(store, run, config, newest, long)
        run.text("comparison.md", "\n".join([*texts, ranked, _chained(run, chain)]))
        words = verdict_words(cells[0].long, newest.methods)
        table = tables.means_table(cells[0].long, newest.methods, [*tables.SHOWN, *tables.AUDITED])
        run.table("comparison.json", table.assign(verdict=table["method"].map(words)))
        _log_means(run, table, cells[0].long)
        nothing = "no report: the recordings of these requests are erased"
        say(f"report: {run.address(report)}" if report else nothing)
    if parent is None:
        tell_answer(store, newest, _once_answered(ledger, config, newest), cells[0].long)
    return long


def _log_means(run: Run, shown: pd.DataFrame, long: pd.DataFrame) -> None:
    """All means as metrics, those of the table for people first, in its order, which is that of the UI."""
    first = shown.set_index("method").filter(items=tables.SHOWN)
    means = {f"{of}/{name}": mean for of, row in first.iterrows() for name, mean in row.items() if pd.notna(mean)}
    run.metrics(means | {f"{row.method}/{row.metric}": row.mean for row in long.itertuples()})


def _once_answered(ledger: Ledger, config: Config, cell: CellRuns) -> tuple[str, str] | None:
    """What to do next where a cell has answered its request, in words, and the command; None where it has not."""
    name, asked = config.registered_model, cell.any_run.tags["request_hash"]
    entries = [entry for entry in ledger.of_model(name) if entry.answers[name].cell == cell.id or entry.asked == asked]
    if entries and all(entry.state == ERASED for entry in entries):
        return "nothing, the request is answered and erased", ""
    return (ERASE, erasing(asked[:8], config.data.label, confirm=False)) if entries else None


def _chained(run: Run, chain: pd.DataFrame) -> str:
    """The model's answered requests into the run and on the screen, as Markdown; empty where there are none."""
    if chain.empty:
        return ""
    run.csv("chain.csv", chain)
    shown = tables.chain_shown(chain)
    say(f"\nrequests one after another\n\n{tables.markdown(tables.narrowed(shown, WIDTH))}")
    say(f"accuracies of the versions that answered them (naive's), all of them: {run.address('chain.csv')}")
    return f"## Requests one after another\n\n{tables.markdown(shown)}\n{tables.CHAIN_EXPLANATION}\n"


def _show(
    run: Run, config: Config, cell: ComparedCell, losses: ClipLosses | None, notes: Sequence[str], place: int
) -> str:
    """Figures and per-clip table of one cell into the run, its tables on the screen; return all as Markdown."""
    runs, audit = cell.runs, cell.audit
    table = tables.markdown(tables.wide_table(cell.long, runs.rows))
    audited = tables.markdown(tables.wide_table(cell.long, runs.rows, tables.AUDITED))
    classes = tables.markdown(tables.wide_table(cell.long, runs.methods, tables.CLASSES))
    data, architecture = config.data, config.training.architecture
    in_the_study = published_markdown(data.dataset, data.pipeline, architecture, runs.request)
    notes = [*notes, *audit.notes]
    if place <= TABLES_ON_SCREEN:
        for note in notes if place == 0 else filter(None, [cell.erased]):
            say(f"note: {note}" if "`" in note else one_line_of(f"note: {note}"))  # no command is cut
        short = tables.short_table(cell.long, runs.methods, verdict_words(cell.long, runs.methods))
        say(f"\n{one_line_of(f'{runs.title}, cell {runs.id}')}\n\n{tables.markdown(short)}")
    _draw(run, cell, losses)
    run.text(f"paper/{runs.folder}.tex", latex_table(cell.long, runs.rows, runs.title, runs.id))
    if len(audit.per_clip):
        run.csv(f"audits/{runs.folder}/per_clip.csv", audit.per_clip.round(6))
    parts = [
        f"## {runs.title}\n\ncell {runs.id}\n\n{table}\n{tables.EXPLANATION}\n",
        tables.listed(notes),
        f"### Classes\n\n{classes}\n{tables.CLASSES_EXPLANATION}\n",
        f"### Audits\n\n{audited}\n{tables.AUDIT_EXPLANATION}{with_references(cell.long)}\n",
        tables.listed(f"{method}: {_reading(runs, audit, method)}" for method in runs.methods),
        tables.paired_markdown(cell.paired, runs.methods),
        in_the_study,
    ]
    return "\n".join(part for part in parts if part)


def _draw(run: Run, cell: ComparedCell, losses: ClipLosses | None) -> None:
    """The cell's figures into the run, for the UI and for papers."""
    methods, title = cell.runs.methods, cell.runs.title
    drawn = {
        "accuracy": figures.accuracy_figure(cell.long, methods, title),
        "mia": figures.mia_figure(cell.long, methods, title),
    }
    if losses is not None:
        drawn["forget_loss"] = figures.forget_loss_figure(losses.of_all_seeds, methods, title)
    for name, figure in drawn.items():
        _keep(run, f"figures/{cell.runs.folder}/{name}", figure)


def _keep(run: Run, name: str, figure: Figure) -> None:
    """A figure in the forms that the UI, papers and pages take."""
    for kind in ("png", "pdf", "svg"):
        run.bytes(f"{name}.{kind}", canvas.as_file(figure, kind))


def _reading(cell: CellRuns, audit: CellAudit, method: str) -> str:
    """The audits of a method in a sentence."""
    metrics = [run.metrics for run in cell.of(method).values()]
    aucs = [values["mia/auc"] for values in metrics if "mia/auc" in values]
    words = []
    if aucs:
        seen = sum(values.get("mia/auc_low", 0.0) > 0.5 for values in metrics)
        over = sum(values.get("mia/auc_high", 1.0) < 0.5 for values in metrics)
        words.append(
            f"population attack AUC {np.mean(aucs):.3f}, surely above 0.5 on {seen} and below it on {over} of "
            f"{len(aucs)} seeds"
        )
        naive = [run.metrics["mia/auc"] for run in cell.of(NAIVE).values()]
        if naive and method != NAIVE:
            words[-1] += f", naive's AUC {np.mean(naive):.3f}"
    else:
        words.append("no population attack: there are no non-members")
    return "; ".join([*words, *([audit.readings[method]] if method in audit.readings else [])])


def _notes(store: Store, config: Config, cell: ComparedCell) -> list[str]:
    """What a reader of the cell's tables must know: missing and failed runs, erased recordings, weak attacks."""
    runs = cell.runs
    # A seed that any method has is expected of every method, as are the configured seeds.
    expected = {*config.training.seeds, *runs.seeds}
    notes = [cell.erased] if cell.erased else []
    finished = [run.tags for run in runs.runs.values()]
    failed_runs = still_failed(store, {**METHOD_RUNS, "cell": runs.id}, finished, "method", "seed")
    for (method, seed), run in sorted(failed_runs.items()):
        notes.append(f"{method} seed {seed} failed and is left out: {run.tags[REASON]}")
    notes += [f"left out of every figure: {told}" for told in cell.damaged]
    for method in runs.methods:
        have = runs.of(method).keys()
        if missing := sorted(expected - have):
            notes.append(f"{method} has no finished run for seeds {missing}: its mean is over {sorted(have)} only")
    failed = sorted({of for (of, _), run in runs.runs.items() if run.tags.get("not_recovered") == "true"})
    if failed:
        notes.append(
            f"not recovered (remain accuracy more than 0.1 below naive's) on at least one seed: {', '.join(failed)}"
        )
    if lost := runs.not_learned:
        notes.append(
            f"naive of seeds {lost} has learned less than half of what the original has: a retrained model that failed "
            "is no reference, and the means over the seeds rest on it: nothing is judged; leave these seeds out or "
            "train longer"
        )
    return [*notes, *_audit_notes(store, cell)]


def _audit_notes(store: Store, cell: ComparedCell) -> list[str]:
    """What the membership figures of the cell rest on."""
    about, tags = cell.about, cell.runs.any_run.tags
    n_forget = about["request"]["n_forget"]
    notes = [f"the forget set has {n_forget} recordings{warning}"] if (warning := few_clips(n_forget)) else []
    notes.append(f"non-members of the membership attacks: {about['nonmembers']['are']}")
    if not about["nonmembers"]["n"]:
        notes.append("the population attack is left out: against other clips it would measure speaker or class")
    elif about["nonmembers"]["speaker_confounded"]:
        notes.append(CONFOUNDED)
    refused = {at: about["population_attack"][rate] for at, rate in RATES.items()}
    notes += [
        f"true-positive rate at {at} false positives refused: {rate['note']}"
        for at, rate in refused.items()
        if rate["value"] is None and about["nonmembers"]["n"]
    ]
    attack = queries.run_of(store, tags["attack_run_id"])
    at_chance = attack.metrics.get("attack/at_chance", 0.0) if attack is not None else 0.0
    if at_chance > 0:
        notes.append(
            f"{at_chance:.0%} of the attack models are at chance on clips that they were not trained "
            "on: the MIA score says little about membership here"
        )
    notes.append(
        "the attack models behind the MIA score were trained, as in the study, on the base models' losses of the "
        "training set, these recordings among it, and of most of the test set: the original's score and those of the "
        "test set are partly of clips that they know"
    )
    if NAIVE not in cell.runs.methods:
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
        try:
            before, key = read_csv(store, earlier.id, POOL), [*NETWORK_TAGS, "request"]
            renewed = before.set_index(key).index.isin(pooled.set_index(key).index)
            pooled = pd.concat([pooled, before[~renewed]], ignore_index=True)
        except (UserError, KeyError) as error:  # every later comparison would meet it too
            say(f"note: the ranking over cells begins anew with this comparison: {error}")
    run.csv(POOL, pooled)
    run.tags({"pools": POOL})
    compared = pooled[[*NETWORK_TAGS, "request"]].drop_duplicates()
    if len(compared) < CELLS_OF_RANKING:
        return ""
    methods = [method for method in first.methods if method not in tables.NOT_RANKED]
    named = tables.listed(" ".join(key) for key in compared.itertuples(index=False))
    ranked = tables.ranking(pooled, methods)
    for metric, name in (("gap/tow", "ToW"), ("|gap/mia_auc|", "distance to naive's AUC")):
        if drawn := figures.ranking_figure(ranked[metric], name):
            _keep(run, f"figures/ranking-{metric.strip('|').partition('/')[2]}", drawn)
    return f"## Ranking over cells\n\nFriedman's test over\n\n{named}\n{tables.ranking_markdown(ranked)}"


def _newest_cells(long: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Request → the rows of its first, which is the newest, cell."""
    chosen: dict[str, pd.DataFrame] = {}
    for _, table in long.groupby("cell", sort=False):
        chosen.setdefault(str(table["request"].iloc[0]), table)
    return chosen
