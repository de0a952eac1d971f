"""The report of a cell and the evidence record of a method, put together from the store."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from audio_mu.config import BASE_FIELDS, REPAIR_FIELDS, Config
from audio_mu.data.audio import SAMPLE_RATE, BadRecording, read_clip
from audio_mu.data.datasets import root_at_hand
from audio_mu.errors import UserError
from audio_mu.progress import say
from audio_mu.report import cards
from audio_mu.report.evidence import (
    ORIGINAL,
    REFERENCE,
    RequestFacts,
    evidence,
    figures_of,
    interval_number,
    interval_percent,
    judge,
    summary,
)
from audio_mu.report.html import (
    SHOWN_CLIPS,
    Clip,
    Record,
    Remembered,
    Report,
    as_wav,
    record_markdown,
    remembered,
    render_record,
    render_report,
)
from audio_mu.store.artifacts import list_files, read_csv
from audio_mu.store.handle import Store
from audio_mu.store.links import share_charts
from audio_mu.store.queries import Finished
from audio_mu.store.runs import Run
from audio_mu.workflows.cells import CellRuns

AUDIO_VARIABLE = "AUDIO_MU_REPORT_AUDIO"  # how many recordings a report may hold; 0: none
DEFAULT_AUDIO = 60
EXAMPLES = 6
PACKAGES = ("mlflow", "torch", "torchaudio", "numpy")
PRUNED_BY_CURVE = ("pop", "cosine", "orthogonal")
RECORD_ROWS = {
    "forget/accuracy": ("accuracy, forget set", interval_percent),
    "remain/accuracy": ("accuracy, remain set", interval_percent),
    "test/accuracy": ("accuracy, test set", interval_percent),
    "held_out/accuracy": ("accuracy, matching test set", interval_percent),
    "forget/loss": ("loss, forget set", interval_number),
    "mia/auc": ("AUC of the attack by the loss", interval_number),
    "mia/score": ("called unseen by attack models", interval_percent),
    "audit/rmia_auc": ("AUC of RMIA", interval_number),
    "audit/ulira_auc": ("AUC of U-LiRA", interval_number),
    "distance/js": ("Jensen-Shannon divergence to naive", interval_number),
}


def write_report(
    store: Store, run: Run, config: Config, cell: CellRuns, long: pd.DataFrame | None = None, notes: Sequence[str] = (),
    chain: pd.DataFrame | None = None,
) -> str:  # fmt: skip
    """Write the report of a cell into a run, and descriptions where people look; return the artifact's path.

    `long`: the long table, of this cell or of several; without it the runs' own metrics.
    `chain`: the requests that the model has answered one after another, as `tables.chain_shown` gives them.
    """
    table = cell.long() if long is None else long[long["cell"] == cell.cell]
    request = request_facts(store, cell)
    forget = _forget_tables(store, cell)
    clips = _clips(next(iter(forget.values())))
    ranked = _remembered(cell, forget)
    # An even choice over the sorted ids shows different classes and speakers.
    examples = [clips[i] for i in np.unique(np.linspace(0, len(clips) - 1, EXAMPLES).astype(int))]
    shown = [clip.clip_id for clip in examples] + [row.clip.clip_id for row in ranked]
    title = title_of(config, cell)
    report = Report(
        title=title,
        request=request,
        examples=examples,
        class_counts=dict(sorted(pd.Series([clip.label for clip in clips]).value_counts().items())),
        n_speakers=len({clip.speaker for clip in clips} - {""}),
        long=table,
        methods=cell.methods,
        forget_losses={m: np.concatenate([forget[m, s]["loss"] for s in cell.of(m)]) for m in cell.methods},
        roc_losses=_roc_losses(store, cell, forget),
        curves=_curves(store, cell),
        remembered=ranked,
        provenance=provenance(store, config, cell),
        audio=_audio(config, _parameter(store, cell, "data_dir"), list(dict.fromkeys(shown))),
        notes=notes,
        chain=chain,
    )
    path = f"report/{cell.request}-{cell.cell[:6]}.html"
    run.text(path, render_report(report))
    run.dataset(config.data.label, _digest(store, config, cell), request.n_forget + request.n_remain, "compare")
    lines = summary(table, cell.methods, request)
    found = "".join(f"- {line}\n" for line in lines)
    run.note(f"## {title}\n\n{found}\nReport: `{path}`; tables: `comparison.md`; figures: `figures/`.")
    _describe(store, cell, title, lines)
    say(f"report: {run.address(path)}")
    return path


def write_record(run: Run, record: Record) -> None:
    """Write an evidence record into a run as evidence.html and evidence.md."""
    run.text("evidence.html", render_record(record))
    run.text("evidence.md", record_markdown(record))


def make_record(
    store: Store, config: Config, cell: CellRuns, method: str, long: pd.DataFrame,
    after: Mapping[int, str] | None = None,
) -> Record:  # fmt: skip
    """The evidence record of a method, from the long table of its cell.

    `after`: seed → version of the registered unlearned model, where there is one.
    """
    request = request_facts(store, cell)
    figures, naive, original = (figures_of(long, name) for name in (method, REFERENCE, ORIGINAL))
    rows = [
        (name, *(show(known[metric]) if metric in known else "–" for known in (original, naive, figures)))
        for metric, (name, show) in RECORD_ROWS.items()
        if metric in figures
    ]
    before = {seed: run.tags["base_version"] for seed, run in cell.of(method).items()}
    versions = [("model", config.registered_model), ("versions before", _by_seed(before))]
    versions.append(("versions after", _by_seed(after) if after else "not registered"))
    return Record(
        method=method,
        title=f"{method}, {title_of(config, cell)}",
        evidence=evidence(method, long, request),
        verdict=judge(method, figures, original or None),
        rows=rows,
        provenance=[
            ("request hash", request.hash), ("recordings", f"{request.n_forget} forgotten, {request.n_remain} kept"),
            *versions, ("runs", _by_seed({seed: run.id for seed, run in cell.of(method).items()})),
            *provenance(store, config, cell),
        ],
    )  # fmt: skip


def title_of(config: Config, cell: CellRuns) -> str:
    """What a cell is about, for headings."""
    split = f", {cell.split} split" if cell.split else ""
    return f"{config.data.label}{split}, {config.training.network} on {config.data.pipeline}, request {cell.request}"


def request_facts(store: Store, cell: CellRuns) -> RequestFacts:
    """What the request was, from any run of its cell."""
    run = _any(cell)
    sizes = {name: len(read_csv(store, run.id, f"losses/{name}.csv")) for name in ("forget", "remain", "test")}
    table = _optional(store, run, "request.csv")
    copies = 0 if table is None or "requested" not in table else int((~table["requested"]).sum())
    held_out = _optional(store, run, "losses/held_out.csv") if "held_out/accuracy" in run.metrics else None
    return RequestFacts(
        kind=_parameter(store, cell, "forget"),
        name=cell.request,
        hash=run.tags["request_hash"],
        n_forget=sizes["forget"],
        n_remain=sizes["remain"],
        n_test=sizes["test"],
        n_held_out=0 if held_out is None else len(held_out),
        n_duplicates_added=copies,
        nonmembers=run.tags.get("nonmembers", ""),
        speaker_confounded=run.tags.get("speaker_confounded") == "true",
    )


def provenance(store: Store, config: Config, cell: CellRuns) -> list[tuple[str, str]]:
    """Where the figures come from: cell, runs, code, data, settings, packages, machine."""
    run = _any(cell)
    commits = {
        other.tags.get("git_commit", "unknown") + (" with changes" if other.tags.get("git_dirty") == "true" else "")
        for other in cell.runs.values()
    }
    rows = [
        ("cell", cell.cell),
        ("seeds", ", ".join(sorted({seed for _, seed in cell.runs}, key=int))),
        ("code, commit", ", ".join(sorted(commits))),
        ("attack run", run.tags["attack_run_id"]),
    ]
    rows += [
        ("recordings, digest", _digest(store, config, cell)),
        ("base training", ", ".join(f"{name} {_parameter(store, cell, name)}" for name in BASE_FIELDS)),
    ]
    return [
        *rows,
        ("unlearning", ", ".join(f"{name} {_parameter(store, cell, name)}" for name in REPAIR_FIELDS)),
        ("packages", ", ".join([f"python {platform.python_version()}", *(f"{p} {version(p)}" for p in PACKAGES)])),
        ("machine", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"),
        ("written", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
    ]


def _digest(store: Store, config: Config, cell: CellRuns) -> str:
    """The digest of the recordings that the base models were made for; runs of before the ledger do not name it."""
    run = _any(cell)
    if "clips_digest" in run.tags:
        return run.tags["clips_digest"]
    return store.client.get_model_version(config.registered_model, run.tags["base_version"]).tags["clips_digest"]


def _any(cell: CellRuns) -> Finished:
    """A run that tells what the whole cell shares."""
    return next((run for run in cell.runs.values() if "nonmembers" in run.tags), next(iter(cell.runs.values())))


def _parameter(store: Store, cell: CellRuns, name: str) -> str:
    return store.client.get_run(_any(cell).id).data.params.get(name, "")


def _by_seed(values: Mapping[int, str]) -> str:
    return ", ".join(f"seed {seed}: {value}" for seed, value in sorted(values.items()))


def _optional(store: Store, run: Finished, path: str) -> pd.DataFrame | None:
    """A table of a run, or None where an earlier version of this project did not write it."""
    folder = Path(path).parent.as_posix()
    listed = list_files(store, run.id, None if folder == "." else folder)
    return read_csv(store, run.id, path) if path in listed else None


def _forget_tables(store: Store, cell: CellRuns) -> dict[tuple[str, int], pd.DataFrame]:
    return {
        (method, int(seed)): read_csv(store, run.id, "losses/forget.csv", dtype={"label": str, "speaker": str})
        for (method, seed), run in cell.runs.items()
    }


def _clips(table: pd.DataFrame) -> list[Clip]:
    ordered = table.sort_values("clip_id")
    return [Clip(*row) for row in ordered[["clip_id", "label", "speaker"]].itertuples(index=False)]


def _remembered(cell: CellRuns, forget: Mapping[tuple[str, int], pd.DataFrame]) -> list[Remembered]:
    """For each method the recordings that it knows best in comparison with naive of the same seeds."""
    naive = set(cell.of(REFERENCE))
    rows: list[Remembered] = []
    for method in cell.methods:
        seeds = sorted(naive & set(cell.of(method)))
        if method != REFERENCE and seeds:
            own, target = ([forget[m, seed] for seed in seeds] for m in (method, REFERENCE))
            rows += remembered(method, own, target)[:SHOWN_CLIPS]
    return rows


def _roc_losses(
    store: Store, cell: CellRuns, forget: Mapping[tuple[str, int], pd.DataFrame]
) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Method → per seed the losses of the forget set and of the request's non-members, where it has some."""
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for (method, seed), run in cell.runs.items():
        table = _optional(store, run, "audit/per_clip.csv")
        if table is None:
            continue
        losses = table.loc[table["role"] == "nonmember", "loss"].to_numpy(float)
        if len(losses):
            pairs.setdefault(method, []).append((forget[method, int(seed)]["loss"].to_numpy(float), losses))
    return pairs


def _curves(store: Store, cell: CellRuns) -> dict[str, np.ndarray]:
    """Seed → cosine curve of the base, which every method that prunes and regrows has recorded."""
    for method in PRUNED_BY_CURVE:
        curves = {}
        for seed, run in cell.of(method).items():
            history = store.client.get_metric_history(run.id, "prune/cosine_by_percent")
            if history:
                curves[str(seed)] = np.array([point.value for point in sorted(history, key=lambda p: p.step)])
        if curves:
            return curves
    return {}


def _audio(config: Config, recorded_folder: str, clip_ids: Sequence[str]) -> dict[str, bytes]:
    """The first of these recordings as the network hears them, as WAV, where their folder is at hand."""
    text = os.environ.get(AUDIO_VARIABLE, str(DEFAULT_AUDIO))
    if not text.isdecimal():
        raise UserError(f"{AUDIO_VARIABLE}={text!r} is not allowed: give how many recordings a report may hold, or 0")
    root = root_at_hand(config.data, recorded_folder) if int(text) else None
    if root is None:
        return {}
    found: dict[str, bytes] = {}
    for clip_id in clip_ids[: int(text)]:
        try:
            found[clip_id] = as_wav(read_clip(root / clip_id, config.data.clip_samples).waveform, SAMPLE_RATE)
        except BadRecording:  # moved or deleted since: the report is made without it
            continue
    return found


def _describe(store: Store, cell: CellRuns, title: str, lines: Iterable[str]) -> None:
    """The experiment's view and description, unless someone wrote an own one, and those of the methods' runs."""
    share_charts(store, cell.cell)
    key, start = "mlflow.note.content", "# audio-mu"
    present = store.client.get_experiment(store.experiment_id).tags.get(key, "")
    if not present or present.startswith(start):
        store.client.set_experiment_tag(store.experiment_id, key, cards.experiment_note(title, list(lines)))
    for (method, seed), run in cell.runs.items():
        if key not in run.tags:
            Run(store, run.id, run.name).note(cards.method_note(method, cell.request, seed, run.metrics))
