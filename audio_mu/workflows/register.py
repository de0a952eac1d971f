"""Put an unlearned model into the registry with its evidence, if the stated rule allows it."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd

from audio_mu.config import Config
from audio_mu.data.audio import SAMPLE_RATE
from audio_mu.errors import UserError
from audio_mu.names import BEST, NAIVE, NONE, ORIGINAL, UNLEARNED
from audio_mu.progress import say
from audio_mu.report import cards
from audio_mu.report.cards import ModelFacts, UnlearnedFacts
from audio_mu.report.facts import figures_of
from audio_mu.report.rule import RULE, best_method, closest, judge
from audio_mu.requests.ledger import COLUMNS, RETIRED, Answer, Answered, Ledger, enter, read_ledger
from audio_mu.store import registry
from audio_mu.store.artifacts import read_csv
from audio_mu.store.handle import Store
from audio_mu.store.queries import Finished
from audio_mu.store.registry import Version
from audio_mu.store.runs import Run
from audio_mu.system.hashing import hash_of
from audio_mu.workflows.cells import CellRuns, audited_long, load_cell
from audio_mu.workflows.data import Data, load_data, matching
from audio_mu.workflows.gather import make_record, request_facts, write_record
from audio_mu.workflows.stage import base_tags

PORT = 5001  # MLflow's UI has 5000


def register_unlearned(config: Config, store: Store, run: Run, cell_id: str) -> dict[int, Version]:
    """Register the models that `register` names, one for each seed; nothing for `none`.

    The method must meet the rule of `audio_mu.report.rule` in the mean over the configured seeds; `best` is the
    one of highest ToW that does. Each seed's model becomes a version of the base's registered model behind the alias
    `unlearned-seed-NN`, the first configured seed's behind `unlearned` too: a choice that looks at no result. Evidence
    and model card go into the runs that made the versions and into `run`. With that the request is answered: it
    enters the ledger. Raises `UserError`, with the reason, where the rule is not met, a model was
    not kept, or recordings of an answered request would be in service again.
    """
    if config.methods.register == NONE:
        return {}
    cell = _of_seeds(load_cell(store, cell_id), config.training.seeds)
    method = _allowed_method(config, cell)
    runs = cell.of(method)
    missing = sorted(set(config.training.seeds) - set(runs))
    if missing:
        raise UserError(
            f"register={config.methods.register!r}: {method} has no finished run for seeds {missing}: run it first"
        )
    models = {seed: _model(store, method, finished) for seed, finished in runs.items()}
    ledger = read_ledger(store, config.data.label)
    data = load_data(config, ledger)
    everything = pd.DataFrame(data.clips.identity, columns=list(COLUMNS))
    forgotten = _forgotten(store, data, everything, ledger, runs[config.training.seeds[0]])
    digest = data.digest_without(forgotten["clip_id"], forgotten["audio_hash"])
    versions = {seed: _register(config, store, cell, method, seed, models[seed], digest) for seed in runs}
    _attach(config, store, run, cell, method, versions)
    for seed, version in versions.items():
        registry.set_alias(store, version, f"{UNLEARNED}-seed-{seed}")
    first = versions[config.training.seeds[0]]
    registry.set_alias(store, first, UNLEARNED)
    enter(store, ledger, _answered(config, store, cell, method, versions, forgotten, everything))
    listed = ", ".join(f"seed {seed}: version {version.version}" for seed, version in versions.items())
    say(f"registered {method} as {config.registered_model}, {listed}")
    say(f"  accuracy, mean of the seeds: {_beside(cell.long(), method)}")
    request = first.tags["request_hash"][:8]
    say(
        f"evidence: {run.address('evidence.html')}; request {request}, to be erased with "
        f"`mlflow run . -e erase -P request={request}`"
    )
    say(
        f"serve it (seed {config.training.seeds[0]}): MLFLOW_TRACKING_URI={store.uri} "
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false mlflow models serve "
        f"-m models:/{config.registered_model}@{UNLEARNED} --env-manager local -p {PORT}"
    )
    return versions


def _beside(long: pd.DataFrame, method: str) -> str:
    """The accuracies that a reader wants to see beside the choice."""
    figures = {who: figures_of(long, who) for who in (method, ORIGINAL, NAIVE)}
    parts = []
    for name in ("forget", "remain", "test"):
        known = {who: of[f"{name}/accuracy"].mean for who, of in figures.items() if f"{name}/accuracy" in of}
        others = ", ".join(f"{who} {value:.3f}" for who, value in known.items() if who != method)
        parts.append(f"{name} {known[method]:.3f} ({others})")
    return ", ".join(parts)


def _forgotten(store: Store, data: Data, everything: pd.DataFrame, ledger: Ledger, run: Finished) -> pd.DataFrame:
    """What a run has forgotten, with every other copy of it among the clips: the ledger's recordings.

    Raises `UserError` where copies, or recordings of an answered request, are still in what the model was given.
    """
    asked = read_csv(store, run.id, "request.csv", dtype=str)
    clips = data.clips
    rows = np.flatnonzero(matching(clips, set(asked["clip_id"]), set(asked["audio_hash"])))
    table = everything.iloc[rows].reset_index(drop=True)
    table["forgotten"] = table["clip_id"].isin(set(asked["clip_id"]))
    kept = sorted(set(np.array(clips.ids)[data.split.train]) & set(table.loc[~table["forgotten"], "clip_id"]))
    if kept:
        raise UserError(
            f"register: {len(kept)} copies of the forgotten recordings are still in the training set "
            f"({', '.join(kept[:3])}{', …' if len(kept) > 3 else ''}): unlearn with duplicates=together first"
        )
    for entry in ledger.entries:
        back = matching(clips, entry.ids, entry.hashes)[data.split.train] & ~np.isin(data.split.train, rows)
        if back.any():
            raise UserError(
                f"register: with ledger=ignore the model holds {int(back.sum())} recordings of the answered request "
                f"{entry.request}: unlearn with ledger=respect to put a model into service"
            )
    return table


def _answered(
    config: Config, store: Store, cell: CellRuns, method: str, versions: Mapping[int, Version], forgotten: pd.DataFrame,
    everything: pd.DataFrame,
) -> Answered:  # fmt: skip
    """The ledger's entry of a request whose unlearned versions have gone into service."""
    runs = cell.of(method)
    first = runs[config.training.seeds[0]]
    clips = read_csv(store, first.id, "audit/per_clip.csv", dtype=str)
    params = store.client.get_run(first.id).data.params
    tags = {name: first.tags[name] for name in ("request", "request_hash")} | {
        **base_tags(config),
        "clips_hash": hash_of(forgotten.loc[forgotten["forgotten"], ["clip_id", "audio_hash"]].to_numpy().tolist()),
        "kind": params["forget"],
        "scope": f"{int(forgotten['forgotten'].sum())} recordings, forget={params['forget']}",
    }
    answer = Answer(
        cell=cell.id,
        method=method,
        before={str(seed): run.tags["base_version"] for seed, run in runs.items()},
        after={str(seed): version.version for seed, version in versions.items()},
        runs={str(seed): run.id for seed, run in runs.items()},
    )
    nonmembers = everything[everything["clip_id"].isin(clips.loc[clips["role"] == "nonmember", "clip_id"])]
    return Answered(tags, config.registered_model, answer, forgotten, nonmembers)


def _of_seeds(cell: CellRuns, seeds: tuple[int, ...]) -> CellRuns:
    """The cell's runs of these seeds alone: others are not asked for, and say nothing about these models."""
    return CellRuns(cell.id, cell.request, {key: run for key, run in cell.runs.items() if key[1] in seeds})


def _allowed_method(config: Config, cell: CellRuns) -> str:
    """The method to register. Raises `UserError` where none, or not the one asked for, meets the rule."""
    asked, long = config.methods.register, cell.long()
    known = "" if NAIVE in cell.methods else "there is no retrained model (naive) to compare with; add it to methods"
    if asked == BEST:
        found = best_method(long, cell.methods)
        if found is not None:
            return found
        nearest = closest(long, cell.methods)
        reason = known or (
            "no method meets the rule" + (f"; the closest is {nearest}: {_reasons(cell, nearest)}" if nearest else "")
        )
        raise UserError(f"register='best' is refused: {reason}{_way_out(asked, long)}")
    if asked not in cell.methods:
        raise UserError(f"register={asked!r}: this cell has no finished run of it: add it to methods")
    if not judge(asked, figures_of(long, asked), figures_of(long, ORIGINAL) or None).passed:
        raise UserError(
            f"register={asked!r} is refused: {known or _reasons(cell, asked)} (rule: {RULE.text})"
            f"{_way_out(asked, long)}"
        )
    return asked


def _way_out(asked: str, long: pd.DataFrame) -> str:
    """The answer that is left, unless the retrained model is missing or is itself what fails."""
    left = asked != NAIVE and (naive := figures_of(long, NAIVE)) and judge(NAIVE, naive).passed
    return "; register=naive, the retrained model, needs no new training" if left else ""


def _reasons(cell: CellRuns, method: str) -> str:
    long = cell.long()
    return "; ".join(judge(method, figures_of(long, method), figures_of(long, ORIGINAL) or None).reasons)


def _model(store: Store, method: str, finished: Finished) -> str:
    """The URI of the model that a run has logged, or the run whose result it took over."""
    for run_id in filter(None, (finished.id, finished.tags.get("reused_run_id"))):
        if RETIRED not in store.client.get_run(run_id).data.tags and (uri := registry.logged_model(store, run_id)):
            return uri
    raise UserError(
        f"register: the model of {method}, seed {finished.tags['seed']}, was not kept: run again with save_models=all "
        "force=true"
    )


def _register(
    config: Config, store: Store, cell: CellRuns, method: str, seed: int, model_uri: str, digest: str
) -> Version:
    """The version of a run's model: made once, found again afterwards."""
    finished = cell.runs[method, seed]
    found = registry.of_run(store, config.registered_model, finished.id)
    if found is not None:
        return found
    base = _base_tags(config, store, finished)
    tags = {name: value for name, value in base.items() if name not in ("fingerprint", "base_run_id")}
    tags |= {
        name: finished.tags[name]
        for name in ("fingerprint", "base_run_id", "base_version", "cell", "method", "request", "request_hash")
    }
    tags["clips_digest"] = digest  # of what remains: the next request starts from here
    tags["evidence"] = f"runs:/{finished.id}/evidence.html"
    about = f"Unlearned by {method}, request {cell.request}"  # the card replaces it once the version has its number
    return registry.register(store, config.registered_model, model_uri, finished.id, tags, about)


def _base_tags(config: Config, store: Store, finished: Finished) -> Mapping[str, str]:
    return store.client.get_model_version(config.registered_model, finished.tags["base_version"]).tags


def _attach(
    config: Config, store: Store, run: Run, cell: CellRuns, method: str, versions: Mapping[int, Version]
) -> None:
    """Evidence and model cards into the runs and the versions' descriptions."""
    after = {seed: version.version for seed, version in versions.items()}
    record = make_record(store, config, cell, method, audited_long(store, cell), after)
    write_record(run, record)
    n_forget = request_facts(store, cell).n_forget
    for seed, version in versions.items():
        finished = cell.runs[method, seed]
        before, naive = (cell.runs.get((name, seed)) for name in (ORIGINAL, NAIVE))
        accuracies = {
            name: (
                before.metrics.get(f"{name}/accuracy") if before else None,
                naive.metrics.get(f"{name}/accuracy") if naive else None,
                finished.metrics[f"{name}/accuracy"],
            )
            for name in ("forget", "remain", "test")
        }
        card = cards.unlearned_card(
            _model_facts(config, store, finished, seed),
            UnlearnedFacts(
                method=method,
                request=cell.request,
                request_hash=finished.tags["request_hash"],
                n_forget=n_forget,
                base_version=finished.tags["base_version"],
                headline=record.evidence.headline,
                rule=RULE.text,
                accuracies=accuracies,
            ),
        )
        own = Run(store, finished.id, finished.name)
        write_record(own, record)
        own.text("model_card.md", card)
        store.client.update_model_version(version.name, version.version, card)


def _model_facts(config: Config, store: Store, finished: Finished, seed: int) -> ModelFacts:
    tags = _base_tags(config, store, finished)
    return ModelFacts(
        name=config.registered_model,
        dataset=config.data.label,
        pipeline=tags["pipeline"],
        architecture=config.training.network,
        seed=seed,
        class_names=json.loads(tags["class_names"]),
        samples=config.data.clip_samples,
        sample_rate=SAMPLE_RATE,
        split=tags["split"],
        recipe=json.loads(tags["recipe"]),
    )
