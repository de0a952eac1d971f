"""The report of a cell, put together from the store, and the answer at the end of a command."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version

import numpy as np
import pandas as pd

from audio_mu.config import BASE_FIELDS, REPAIR_FIELDS, Config, DataParameters
from audio_mu.config.commands import command
from audio_mu.config.parsers import seeds_text
from audio_mu.config.recipe import OLDER
from audio_mu.errors import UserError, first_of
from audio_mu.names import ADOPTED, BEST, EXACT, EXACT_SHARDS, NAIVE, ORIGINAL, RECIPE_KNOWN
from audio_mu.printable import printable
from audio_mu.report import cards
from audio_mu.report.answer import answer
from audio_mu.report.choice import best_method, closest
from audio_mu.report.classes import Classes, called_now, confusions, worst_named
from audio_mu.report.facts import RequestFacts, figures_of, sides_told
from audio_mu.report.html import (
    SHOWN_CLIPS,
    Remembered,
    Report,
    remembered,
    render_report,
)
from audio_mu.report.rule import judge
from audio_mu.report.sound import sound_of
from audio_mu.report.summary import summary
from audio_mu.report.tables import listed
from audio_mu.requests.ledger import COPIES
from audio_mu.store import queries
from audio_mu.store.artifacts import read_csvs, repeated, way_back
from audio_mu.store.handle import Store
from audio_mu.store.links import share_charts
from audio_mu.store.runs import Run
from audio_mu.workflows.cells import CellRuns, ClipLosses, ComparedCell, load_cell

EXAMPLES = 6
PACKAGES = ("mlflow", "torch", "torchaudio", "numpy")
CONFUSION = "audit/confusion.csv"
CURVE = "prune/cosine_by_percent"
TOLD = ("forget/accuracy", "remain/accuracy", "test/accuracy", "mia/auc", "gap/tow", "time/speedup")
SIZES = ("n_forget", "n_remain", "n_test", "n_held_out", "n_duplicates_added")


def write_report(
    store: Store, run: Run, data: DataParameters, cell: ComparedCell, losses: ClipLosses, notes: Sequence[str],
    chain: pd.DataFrame,
) -> str:  # fmt: skip
    """Write the report of a cell into a run, and descriptions where people look; return the artifact's path.

    `chain`: the requests that the model has answered one after another, as `tables.chain_shown` gives them.
    """
    runs, methods = cell.runs, cell.runs.methods
    params = store.client.get_run(runs.any_run.id).data.params
    request = request_facts(store, runs)
    clips = losses.clips
    if not clips:  # the cell's own lists had them when it was read
        raise UserError(f"the recordings of {runs.title} were erased while this command read them: run it again")
    ranked = _remembered(runs, losses)
    # An even choice over the sorted ids shows different classes and speakers.
    examples = [clips[sorted(clips)[i]] for i in np.unique(np.linspace(0, len(clips) - 1, EXAMPLES).astype(int))]
    shown = [*examples, *(row.clip for row in ranked)]
    report = Report(
        title=runs.title,
        request=request,
        examples=examples,
        class_counts=dict(sorted(Counter(clip.label for clip in clips.values()).items())),
        n_speakers=len({clip.speaker for clip in clips.values()} - {""}),
        long=cell.long,
        methods=methods,
        forget_losses=losses.of_all_seeds,
        roc_losses=losses.by_seed,
        curves=_curves(store, runs),
        remembered=ranked,
        provenance=provenance(runs, params),
        settings={method: _in_force(runs, method) for method in methods},
        audio=sound_of(
            replace(data, clip_seconds=float(params.get("clip_seconds", data.clip_seconds))),
            params.get("data_dir", ""),
            list(dict.fromkeys(shown)),
        ),
        notes=notes,
        chain=chain,
        classes=_classes(store, cell),
    )
    path = f"report/{runs.folder}.html"
    run.text(path, render_report(report))
    run.dataset(data.label, runs.any_run.tags["clips_digest"], request.n_forget + request.n_remain, "compare")
    lines = summary(cell.long, methods, request)
    about = f"Report: `{path}`; tables: `comparison.md`; figures: `figures/`."
    run.note(f"## {runs.title}\n\n{listed(lines)}\n{about}")
    _describe(store, runs, lines)
    return path


def _classes(store: Store, cell: ComparedCell) -> Classes:
    """The worst class of each set, what is taken for what, and what removed classes are called now."""
    methods, text = cell.runs.methods, {"dtype": {"label": str, "answer": str}}
    found = {method: cell.runs.of(method).values() for method in methods}

    @cache  # of a removed class every method is asked for, and two of them were before
    def confusion(method: str) -> list[pd.DataFrame]:
        return read_csvs(store, [run.id for run in found[method]], CONFUSION, **text)

    worst = worst_named({method: [run.tags for run in runs] for method, runs in found.items()})
    shown = best_method(cell.long, methods) or closest(cell.long, methods)
    confused = confusions(confusion(shown), confusion(NAIVE)) if shown and NAIVE in methods else []
    is_class = cell.about["request"].get("kind") == "class"
    return Classes(worst, called_now({m: confusion(m) for m in methods}) if is_class else [], confused, shown or "")


def _in_force(cell: CellRuns, method: str) -> str:
    """The settings of a method that were in force, and its rates, of its first seed; later seeds may round others.

    A method's own learning_rate is the published one, in force only where none that it trained with is logged.
    """
    params = next(iter(cell.of(method).values())).params
    own = {name: value for name, value in sorted(params.items()) if name in REPAIR_FIELDS or name.startswith("method.")}
    if any(name.endswith("_learning_rate") for name in own):
        own.pop("method.learning_rate", None)
    return _settings({name.removeprefix("method."): value for name, value in own.items()})


def request_facts(store: Store, cell: CellRuns) -> RequestFacts:
    """The request's name and size, as the command that unlearned it logged them."""
    tags = cell.any_run.tags
    command = queries.run_of(store, tags.get("mlflow.parentRunId", ""))
    sizes = command.metrics if command is not None else {}
    if missing := [name for name in SIZES if f"request/{name}" not in sizes]:
        raise UserError(
            f"the run of the command that unlearned {cell.request} is gone from the store, with {first_of(missing)} of "
            f"its request: {way_back(store.client, cell.any_run.id)}"
        )
    return RequestFacts(
        name=cell.request,
        hash=tags["request_hash"],
        **{name: int(sizes[f"request/{name}"]) for name in SIZES},
        speaker_confounded=tags["speaker_confounded"] == "true",
        copies=tags.get(COPIES, ""),
    )


def provenance(cell: CellRuns, params: Mapping[str, str]) -> list[tuple[str, str]]:
    """Where the figures come from: cell, runs, code, data, settings, packages, machine."""
    tags = cell.any_run.tags
    commits = {
        run.tags.get("git_commit", "unknown") + (" with changes" if run.tags.get("git_dirty") == "true" else "")
        for run in cell.runs.values()
    }
    recipe = {name: params.get(name, OLDER.get(name, "unknown")) for name in BASE_FIELDS}
    told = sides_told(tags["split"], tags["dataset"], ADOPTED in tags)
    if not told.endswith("split"):  # nothing was drawn
        recipe = {name: text for name, text in recipe.items() if name != "split_seed"} | {"split": f"by the {told}"}
    training = _settings(recipe)
    adopted = {run.tags[ADOPTED] for run in cell.runs.values() if ADOPTED in run.tags}
    return [
        ("cell", cell.id),
        ("seeds", ", ".join(map(str, cell.seeds))),
        ("code, commit", ", ".join(sorted(commits))),
        ("attack run", tags["attack_run_id"]),
        ("recordings, digest", tags["clips_digest"]),
        *([("weights adopted, hash", ", ".join(sorted(adopted)))] if adopted else []),
        ("base training", training if tags.get(RECIPE_KNOWN) != "false" else "elsewhere, in a way that is not known"),
        ("unlearning", _settings(json.loads(tags["repair"]))),
        ("packages", ", ".join([f"python {platform.python_version()}", *(f"{p} {version(p)}" for p in PACKAGES)])),
        ("machine", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"),
        ("written", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
    ]


def _settings(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _remembered(cell: CellRuns, losses: ClipLosses) -> list[Remembered]:
    """For each method the recordings that it knows best in comparison with naive of the same seeds."""
    rows: list[Remembered] = []
    for method in cell.methods:
        seeds = sorted(cell.of(NAIVE).keys() & cell.of(method).keys())
        if method != NAIVE and seeds:
            own, naive = (losses.forget[name][seeds] for name in (method, NAIVE))
            rows += remembered(method, own, naive, losses.clips)[:SHOWN_CLIPS]
    return rows


def _curves(store: Store, cell: CellRuns) -> dict[str, np.ndarray]:
    """Seed → cosine curve of the base model, from any run whose method has recorded it."""
    recorded = {seed: run for (_, seed), run in cell.runs.items() if CURVE in run.metrics}
    curves = {}
    for seed, run in sorted(recorded.items()):
        points = sorted(store.client.get_metric_history(run.id, CURVE), key=lambda point: point.step)
        curves[str(seed)] = np.array([point.value for point in points])
    return curves


def _describe(store: Store, cell: CellRuns, lines: Sequence[str]) -> None:
    """The experiment's view and description, unless someone wrote an own one, and those of the methods' runs."""
    share_charts(store, cell.id, cell.methods)
    key, start = "mlflow.note.content", "# audio-mu"
    present = store.client.get_experiment(store.experiment_id).tags.get(key, "")
    if not present or present.startswith(start):
        note = printable(cards.experiment_note(cell.title, lines))
        store.client.set_experiment_tag(store.experiment_id, key, note)
    for (method, seed), run in cell.runs.items():
        if key not in run.tags:
            Run(store, run.id, run.name).note(cards.method_note(method, cell.request, seed, run.metrics))


def describe_chain(store: Store, run: Run, config: Config, cell_id: str, long: pd.DataFrame) -> None:
    """Description, data set and the few figures that matter for the run of the whole chain, which people open first."""
    cell = load_cell(store, cell_id)
    request, methods = request_facts(store, cell), cell.methods
    told = listed(summary(long, methods, request))
    run.note(f"## {cell.title}\n\n{told}\nReport and tables: the run `compare` below.")
    run.dataset(config.data.label, cell.any_run.tags["clips_digest"], request.n_forget + request.n_remain, "main")
    shown = dict.fromkeys([ORIGINAL, NAIVE, best_method(long, methods) or closest(long, methods)])
    rows = long[long["method"].isin(shown.keys()) & long["metric"].isin(TOLD)]
    run.metrics({f"{row.method}/{row.metric}": row.mean for row in rows.itertuples()})


def tell_answer(store: Store, cell: CellRuns, step: tuple[str, str] | None, long: pd.DataFrame) -> None:
    """End with the answer of a cell, from its long table. step: what to do next, in words, and the command."""
    words, how = step or next_step(store, cell, long)
    store.answer[:] = answer(long, cell.methods, request_facts(store, cell), words, how)


def next_step(store: Store, cell: CellRuns, long: pd.DataFrame) -> tuple[str, str]:
    """What follows from a cell's verdicts, in words, and the command."""
    if not {*EXACT} & {*cell.methods}:
        return "retrain without the recordings (naive), to compare with", again_of(store, cell, NAIVE)
    retrained = NAIVE if NAIVE in cell.methods else EXACT_SHARDS
    if not judge(retrained, figures_of(long, retrained)).passed:
        if ADOPTED in cell.any_run.tags:
            return "adopt again with more n_epochs, by the recipe given naive has learned too little", ""
        longer = 2 * int(store.client.get_run(cell.any_run.id).data.params["n_epochs"])
        return "train longer, naive has learned too little", command("main", n_epochs=str(longer))
    if (best := best_method(long, cell.methods)) is not None:
        return f"to answer this request, put {best} into service", again_of(store, cell, best, register=BEST)
    return naive_step(store, cell)


def naive_step(store: Store, cell: CellRuns) -> tuple[str, str]:
    """The step that a refusal leaves."""
    return "to answer this request, put naive, the retrained model, into service", again_of(
        store, cell, NAIVE, register=NAIVE
    )


def again_of(store: Store, cell: CellRuns, method: str, **values: str) -> str:
    """The command that unlearns a cell's request, with all its settings, by one method."""
    run, seeds = store.client.get_run(cell.any_run.id), seeds_text(cell.seeds)
    return repeated(store.client, run, seeds=seeds, methods=method, **values)
