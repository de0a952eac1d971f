"""Put an unlearned model into the registry with its evidence, if the stated rule allows it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from audio_mu.audit.one_model import COMPARED
from audio_mu.config import Config
from audio_mu.config.commands import command, erasing
from audio_mu.data.audio import SAMPLE_RATE
from audio_mu.data.clips import Clips
from audio_mu.erasure.descent import learnt_before
from audio_mu.erasure.in_service import tell_served_everywhere
from audio_mu.errors import UserError, counted, first_of
from audio_mu.names import BEST, EXACT, NAIVE, NONE, ORIGINAL, RECIPE_KNOWN, UNLEARNED
from audio_mu.printable import printable
from audio_mu.progress import say
from audio_mu.report import cards
from audio_mu.report.answer import ERASE
from audio_mu.report.cards import ModelFacts, UnlearnedFacts
from audio_mu.report.choice import NotAllowed, allowed_method, naive_is_left
from audio_mu.report.evidence import Choice
from audio_mu.report.facts import accuracies_beside
from audio_mu.report.rule import RULE
from audio_mu.requests.again import asked_of
from audio_mu.requests.complete import check_lists
from audio_mu.requests.ledger import (
    COLUMNS,
    COPIES,
    OF_CLASS,
    OF_PERSON,
    OF_RECORDINGS,
    RETIRED,
    SCOPE,
    SOUGHT,
    Answer,
    Entry,
    Ledger,
    clips_hash,
    enter,
)
from audio_mu.requests.other_names import ledger_here
from audio_mu.requests.people import of_each_person
from audio_mu.requests.probable import NOT_SOUGHT
from audio_mu.store import queries, registry
from audio_mu.store.artifacts import read_csv, read_logits
from audio_mu.store.failed import REASON, refuse_left_out, still_failed
from audio_mu.store.handle import Store
from audio_mu.store.locks import registry_locked
from audio_mu.store.queries import Finished
from audio_mu.store.registry import Version
from audio_mu.store.runs import Run
from audio_mu.workflows.cells import CellRuns, load_cell
from audio_mu.workflows.data import Data, data_of_bases, learnt_from, matching
from audio_mu.workflows.gather import naive_step, request_facts, tell_answer
from audio_mu.workflows.report import choice_of, make_record, service_of, write_record
from audio_mu.workflows.stage import base_tags

PORT = 5001  # MLflow's UI has 5000
REFUSED = "registration_refused"
HASHES = ["audio_hash", "source_hash", "within"]


@dataclass(frozen=True)
class Chosen:
    """A method of a cell that is to go into service: its run of every configured seed."""

    cell: CellRuns
    method: str
    runs: Mapping[int, Finished]
    choice: Choice

    @property
    def first(self) -> Finished:
        """The run of the first seed, which is asked for what all share."""
        return next(iter(self.runs.values()))

    @property
    def served_seed(self) -> int:
        """The seed whose model goes into service: of the highest accuracy on the remain set, the first of equals."""
        return max(self.runs, key=lambda seed: self.runs[seed].metrics["remain/accuracy"])


def finish(config: Config, store: Store, run: Run, cell_id: str, step: tuple[str, str] | None = None) -> None:
    """Register what was asked for, and have the command end with its answer; its run is finished either way.

    step: what to do next where nothing is registered, unless the verdicts say it. Raises `UserError` where the
    registration is refused, and leaves the reason with the run.
    """
    if not (found := queries.find(store, {"stage": "unlearn", "role": "method", "cell": cell_id})):
        return
    cell = CellRuns.from_runs(found)
    tell_answer(store, cell, step, cell.long())
    try:
        if register_unlearned(config, store, run, cell_id):
            tell_served_everywhere(store)
            left = erasing(cell.any_run.tags["request_hash"][:8], config.data.label, confirm=False)
            tell_answer(store, cell, (ERASE, left), cell.long())
    except NotAllowed as refusal:
        run.tags({REFUSED: refusal.reasons})
        say(f"register={config.methods.register!r} is refused: {refusal.reasons}")
        whole = {*config.training.seeds} <= {*cell.of(NAIVE)}
        is_left = whole and naive_is_left(config.methods.register, cell.long())
        raise UserError(f"{refusal}{f'; go on with `{naive_step(store, cell)[1]}`' if is_left else ''}") from None
    except UserError as refusal:
        run.tags({REFUSED: str(refusal)})
        raise


def register_unlearned(config: Config, store: Store, run: Run, cell_id: str) -> dict[int, Version]:
    """Register the models that `register` names, one for each seed; nothing for `none`.

    The method must meet the rule of `audio_mu.report.rule` on the configured seeds, each of whose models goes into
    service; `best` is the method of highest ToW that does, with all methods compared sharing the doubt. Each seed's
    model becomes a version behind the alias `unlearned-seed-NN`, that of `served_seed` behind `unlearned` too: chosen
    without the test set. Evidence and model card go into the runs that made the versions and into `run`. The request is
    answered and enters the ledger. Raises `UserError` where the rule is not met, a model was not kept, or an answered
    request would be in service again.
    """
    if config.methods.register == NONE:
        return {}
    with registry_locked(store):  # from the ledger's reading to the entry in it no other request is answered
        return _register(config, store, run, cell_id)


def _register(config: Config, store: Store, run: Run, cell_id: str) -> dict[int, Version]:
    cell, tags = load_cell(store, cell_id), {"stage": "unlearn", "role": "method", "cell": cell_id}
    asked = config.methods.register
    refuse_left_out(store, cell.runs, *(cell.methods if asked == BEST else (asked, NAIVE, ORIGINAL)))
    failed = still_failed(store, tags, [run.tags for run in cell.runs.values()], "method", "seed")
    chosen = _chosen(asked, cell, config.training.seeds, failed)
    models = {seed: _model(store, chosen.method, finished) for seed, finished in chosen.runs.items()}
    ledger = ledger_here(store, config.data.label)
    _refuse_erased(ledger, chosen.first)
    for seed, model in models.items():
        check_lists(store, chosen.runs[seed])
        registry.check_weights(model)
    data = data_of_bases(config, store, ledger)
    _refuse_crossed(config, store, chosen, data.clips, ledger)
    forgotten = _forgotten(store, data, chosen.first)
    digest = data.digest_without({*forgotten["clip_id"]}, {*forgotten[HASHES].to_numpy().ravel()})
    name = config.registered_model
    versions = {seed: _version(store, name, chosen, seed, model, digest) for seed, model in models.items()}
    _attach(config, store, run, chosen, versions)
    aliases = {f"{UNLEARNED}-seed-{seed}": version for seed, version in versions.items()}
    aliases[UNLEARNED] = versions[chosen.served_seed]
    enter(store, ledger, of_each_person(_answered(config, store, chosen, versions, forgotten, data.clips)), aliases)
    _tell(store, run, name, chosen, versions)
    return versions


def _chosen(asked: str, cell: CellRuns, seeds: tuple[int, ...], failed: Mapping[tuple[str, ...], Finished]) -> Chosen:
    """The runs to register. Other seeds are not asked for, and say nothing about these models.

    `best` is one of the methods that have every seed. Raises `UserError` where the method or naive lacks one: its
    model of that seed would not be there, or would not be measured.
    """
    cell = CellRuns(cell.id, cell.request, {key: run for key, run in cell.runs.items() if key[1] in seeds})
    whole = {key: run for key, run in cell.runs.items() if len(cell.of(key[0])) == len(seeds)}
    complete = CellRuns(cell.id, cell.request, whole or cell.runs)
    method = allowed_method(asked, complete.long(), complete.methods) if asked == BEST else asked
    for name in dict.fromkeys((method, method if method in EXACT else NAIVE)):  # what is exact needs no measure
        if missing := sorted(set(seeds) - set(cell.of(name))):
            why = next((run.tags[REASON] for (of, _), run in failed.items() if of == name), "not among methods")
            lacking = f"{name} has no finished run for seeds {missing} ({why})"
            raise NotAllowed(f"register={asked!r} is refused: {lacking}: mend that and run it again", lacking)
    if asked != BEST:
        allowed_method(asked, cell.long(), cell.methods)
    return Chosen(cell, method, cell.of(method), choice_of(asked, complete, method))


def _model(store: Store, method: str, finished: Finished) -> str:
    """The URI of the model that a run has logged, or the run whose result it took over."""
    for run_id in filter(None, (finished.id, finished.tags.get("reused_run_id"))):
        if RETIRED not in store.client.get_run(run_id).data.tags and (uri := registry.logged_model(store, run_id)):
            return uri
    raise UserError(
        f"register: the model of {method}, seed {finished.tags['seed']}, was not kept: run "
        f"`{command('unlearn', methods=method, seeds=finished.tags['seed'], save_models='all', force='true')}`"
    )


def _refuse_erased(ledger: Ledger, run: Finished) -> None:
    for entry in ledger.entries:
        if entry.gone and entry.asked == run.tags["request_hash"]:
            raise UserError(
                f"register: request {entry.request} ({entry.hash[:8]}) was erased in between, nothing of it may come "
                f"back: run `{command('train')}`, which leaves its recordings out"
            )


def _refuse_crossed(config: Config, store: Store, chosen: Chosen, clips: Clips, ledger: Ledger) -> None:
    """Raise `UserError` where a model has learnt recordings of another answered request.

    By the run's own lists and what its base descends from: what the ledger was when it was made does not matter then.
    """
    others = [*ledger.entries, *ledger.elsewhere]
    entries = [entry for entry in others if entry.asked != chosen.first.tags["request_hash"]]
    for run in chosen.runs.values():
        learnt = np.isin(clips.ids, read_logits(store, run.id, "logits/remain.npz")["clip_id"])
        by_lists = learnt_from(config, clips, entries, np.flatnonzero(learnt))
        for entry, held in (*by_lists, *learnt_before(store, run.id, run.tags, entries)):
            if config.store.ledger == "ignore":
                raise UserError(
                    f"register: with ledger=ignore the model holds {held} recordings of the answered request "
                    f"{entry.request}: unlearn with ledger=respect to put a model into service"
                )
            raise UserError(
                f"register: request {entry.request} ({entry.hash[:8]}) was answered in between, and this model holds "
                f"{held} of its recordings: run `{command('attack')}`, then the same command again"
            )


def _forgotten(store: Store, data: Data, run: Finished) -> pd.DataFrame:
    """What a run has forgotten, with every other copy of it among the clips: the ledger's recordings.

    Raises `UserError` where copies of them are still in what the model was given.
    """
    needs = ("clip_id", "audio_hash", "source_hash", "trained", SCOPE)
    asked = read_csv(store, run.id, "request.csv", needs, dtype=str)
    clips, train = data.clips, data.split.train
    gone = matching(clips, set(asked["clip_id"]), {*asked.filter(HASHES).to_numpy().ravel()})
    table = pd.DataFrame([row for row, is_one in zip(clips.identity, gone) if is_one], columns=list(COLUMNS))
    trained = asked[asked["trained"] == "True"]
    table["forgotten"] = table["clip_id"].isin(set(trained["clip_id"]))
    table[SCOPE] = table["clip_id"].map(dict(zip(asked["clip_id"], asked[SCOPE]))).fillna(OF_RECORDINGS)
    if kept := sorted(set(np.array(clips.ids)[train]) & set(table.loc[~table["forgotten"], "clip_id"])):
        raise UserError(
            f"register: still in the training set, {counted(len(kept), 'copy')} of the forgotten recordings "
            f"({first_of(kept, 3)}): unlearn with duplicates=together first"
        )
    return table


def _version(store: Store, name: str, chosen: Chosen, seed: int, model_uri: str, digest: str) -> Version:
    """The version of a seed's model: made once, found again afterwards. `digest`: of the recordings that remain."""
    finished = chosen.runs[seed]
    if (found := registry.of_run(store, name, finished.id)) is not None:
        return found
    own = ("fingerprint", "base_run_id", "base_version", "cell", "method", "request", "request_hash")
    tags = {
        **_tags_of_base(store, name, finished),
        **{key: finished.tags[key] for key in own},
        "compared": str(chosen.choice.compared),
        "test_accuracy": f"{finished.metrics['test/accuracy']:.3f}",
        "clips_digest": digest,  # the next request starts from here
        "evidence": f"runs:/{finished.id}/evidence.html",
    }
    about = f"Unlearned by {chosen.method}, request {chosen.cell.request}"  # until the card is written
    return registry.register(store, name, model_uri, finished.id, tags, about)


def _tags_of_base(store: Store, name: str, run: Finished) -> Mapping[str, str]:
    return store.client.get_model_version(name, run.tags["base_version"]).tags


def _attach(config: Config, store: Store, run: Run, chosen: Chosen, versions: Mapping[int, Version]) -> None:
    """Evidence and model cards into the runs and the versions' descriptions."""
    cell = chosen.cell
    after = {seed: version.version for seed, version in versions.items()}
    service = service_of(cell, chosen.method, config.registered_model, after, after[chosen.served_seed])
    record = make_record(store, cell, chosen.method, chosen.choice, service)
    write_record(run, record)
    n_forget = request_facts(store, cell).n_forget
    for seed, version in versions.items():
        finished = chosen.runs[seed]
        about = UnlearnedFacts(
            chosen.method, cell.request, finished.tags["request_hash"], n_forget, finished.tags["base_version"],
            record.evidence.headline, RULE.text, _accuracies(chosen, seed),
        )  # fmt: skip
        facts = _model_facts(config, _tags_of_base(store, config.registered_model, finished), seed)
        own = Run(store, finished.id, finished.name)
        write_record(own, record)
        own.text("model_card.md", card := cards.unlearned_card(facts, about))
        store.client.update_model_version(version.name, version.version, printable(card))


def _accuracies(chosen: Chosen, seed: int) -> dict[str, tuple[float | None, float | None, float]]:
    """Set → the accuracies of the original, of naive and of the method."""
    metrics = {method: run.metrics for (method, of), run in chosen.cell.runs.items() if of == seed}
    before, naive, own = (metrics.get(who, {}) for who in (ORIGINAL, NAIVE, chosen.method))
    keys = {name: f"{name}/accuracy" for name in COMPARED}
    return {name: (before.get(key), naive.get(key), own[key]) for name, key in keys.items()}


def _model_facts(config: Config, tags: Mapping[str, str], seed: int) -> ModelFacts:
    """What a card tells of a model. `tags`: of the version that it was unlearned from."""
    names, recipe = json.loads(tags["class_names"]), json.loads(tags["recipe"])
    recipe = {} if tags.get(RECIPE_KNOWN) == "false" else recipe
    return ModelFacts(
        config.registered_model, config.data.label, tags["pipeline"], config.training.network, seed, names,
        config.data.clip_samples, SAMPLE_RATE, tags["split"], recipe,
    )  # fmt: skip


def _answered(
    config: Config, store: Store, chosen: Chosen, versions: Mapping[int, Version], forgotten: pd.DataFrame, clips: Clips
) -> Entry:
    """The ledger's entry of a request whose unlearned versions have gone into service."""
    first, runs = chosen.first, chosen.runs
    measured = read_csv(store, first.id, "audit/per_clip.csv", dtype=str)
    beside = set(measured.loc[measured["role"] == "nonmember", "clip_id"])
    nonmembers = pd.DataFrame([row for row in clips.identity if row[0] in beside], columns=list(COLUMNS))
    kind = store.client.get_run(first.id).data.params["forget"]
    tags = {
        **{name: first.tags[name] for name in ("request", "request_hash")},
        **{f"asked_{name}": first.tags[f"request{of}"] for name, of in (("request", ""), ("hash", "_hash"))},
        **base_tags(config),
        "clips_hash": clips_hash(forgotten),
        "kind": kind,
        "asked": asked_of(config),
        COPIES: first.tags.get(COPIES, NOT_SOUGHT),
        SOUGHT: first.tags.get(SOUGHT, "false"),
        "scope": next((scope for scope in (OF_PERSON, OF_CLASS) if scope in set(forgotten[SCOPE])), OF_RECORDINGS),
    }
    answer = Answer(
        cell=chosen.cell.id,
        method=chosen.method,
        before={str(seed): run.tags["base_version"] for seed, run in runs.items()},
        after={str(seed): version.version for seed, version in versions.items()},
        runs={str(seed): run.id for seed, run in runs.items()},
    )
    return Entry("", tags, forgotten, nonmembers, {config.registered_model: answer})


def _tell(store: Store, run: Run, name: str, chosen: Chosen, versions: Mapping[int, Version]) -> None:
    """What was registered, what it can do, and where to go from here."""
    listed = ", ".join(f"seed {seed}: version {version.version}" for seed, version in versions.items())
    say(f"registered {chosen.method} as {name}, {listed}")
    say(f"  accuracy, mean of the seeds: {accuracies_beside(chosen.cell.long(), chosen.method)}")
    request = chosen.first.tags["request_hash"][:8]
    say(f"evidence: {run.address('evidence.html')}; request {request}")
    before, naive, after = _accuracies(chosen, chosen.served_seed)["test"]
    beside = "".join(f", {who} {value:.3f}" for who, value in ((NAIVE, naive),) if value is not None)
    say(
        f"in service: seed {chosen.served_seed}, of the highest accuracy on the remain set; its test accuracy "
        + (f"{before:.3f} → " if before is not None else "")
        + f"{after:.3f}{beside}"
    )
    say(
        f"serve it (seed {chosen.served_seed}): MLFLOW_TRACKING_URI={shlex.quote(store.uri)} "
        f"MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false mlflow models serve -m models:/{name}@{UNLEARNED} "
        f"--env-manager local -p {PORT}"
    )
