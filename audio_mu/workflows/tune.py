"""Choose the methods' hyper-parameters in a rehearsal of the request: without the test set, on networks of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from audio_mu.audit.certainty import paired_error
from audio_mu.audit.performance import cross_entropy
from audio_mu.audit.rehearsal import Score, told_apart
from audio_mu.base_models.fingerprints import (
    UNLEARNING_SOURCE,
    machine,
    network_identity,
    problem,
    source_hash,
    training_job,
)
from audio_mu.compute.attempt import Failed
from audio_mu.compute.engine import Engine
from audio_mu.compute.jobs import Result, TrainJob, UnlearnJob, train_job, unlearn_job
from audio_mu.config import REPAIR_FIELDS, Config
from audio_mu.config.commands import command
from audio_mu.data.splits import VALIDATION_SHARE
from audio_mu.errors import UserError
from audio_mu.progress import say
from audio_mu.report.trials import recommendation, trials_table, tuned_yaml
from audio_mu.requests.request import Request
from audio_mu.seeding import derive
from audio_mu.store import queries
from audio_mu.store.failed import log_failed
from audio_mu.store.handle import Store
from audio_mu.store.runs import Child, Run, child_run
from audio_mu.system.hashing import hash_of
from audio_mu.unlearning import METHODS
from audio_mu.unlearning.trials import Trial, draw_trials
from audio_mu.workflows.bases import find_bases
from audio_mu.workflows.data import Data, resolve
from audio_mu.workflows.method_settings import check_methods, hyper_parameters_of, method_settings
from audio_mu.workflows.stage import base_params, base_tags, stage_run

TUNED = "tuned.yaml"


@dataclass(frozen=True)
class Rehearsal:
    """The request on networks of its own: `validation` is kept from all of them, and the test set is not here.

    The base is trained on forget + fit, the reference, a retrained network, on fit with another seed; neither seed is
    that of a base model, so that no reported network has a part in the choice.
    """

    config: Config
    data: Data
    request: Request
    fit: np.ndarray
    validation: np.ndarray
    shard_of: np.ndarray | None = None

    @property
    def base_seed(self) -> int:
        """Seed of the network that the trials unlearn from."""
        return derive(self.config.request.forget_seed, "tune", "base") % 2**31

    @property
    def reference_seed(self) -> int:
        """Seed of the retrained network."""
        return derive(self.config.request.forget_seed, "tune", "reference") % 2**31

    @property
    def sets(self) -> dict[str, np.ndarray]:
        """What a trial is given and measured on."""
        return {"forget": self.request.forget, "remain": self.fit, "validation": self.validation}

    @property
    def id(self) -> str:
        """Hash of all that the base and the reference depend on."""
        config = self.config
        return hash_of(
            [
                "rehearsal with errors", network_identity(config), config.data.pipeline, config.hashed_recipe,
                self.data.digest, self.request.hash, [self.data.clips.ids[i] for i in self.validation], self.base_seed,
                self.reference_seed, machine(config), source_hash(UNLEARNING_SOURCE),
                *([] if self.shard_of is None else [self.shard_of.tolist()]),
            ]
        )  # fmt: skip

    @property
    def params(self) -> dict[str, str]:
        """The parameters in force in the rehearsal."""
        return base_params(self.config) | self.config.as_text((*self.config.request.in_force, *REPAIR_FIELDS))

    def fingerprint(self, trial: Trial) -> str:
        """Hash of what a trial reads."""
        settings = self.config.as_text(REPAIR_FIELDS)
        return hash_of([self.id, trial.method, dict(trial.values), settings, METHODS[trial.method].digest])

    def train_jobs(self) -> dict[str, TrainJob]:
        """The two networks by name. Nothing chooses a checkpoint here, whatever the recipe says."""
        clips = {
            "base": (self.base_seed, np.sort(np.concatenate([self.request.forget, self.fit]))),
            "reference": (self.reference_seed, self.fit),
        }
        sets = {name: self.sets[name] for name in ("forget", "validation")}
        return {
            name: training_job(self.config, self.data.clips, seed, train, sets, self.shard_of)
            for name, (seed, train) in clips.items()
        }

    def job(self, trial: Trial, base_state: Mapping[str, np.ndarray]) -> UnlearnJob:
        """A trial as a piece of work."""
        return UnlearnJob(
            problem=problem(self.config, self.data.clips),
            seed=self.base_seed,
            method=trial.method,
            request=self.request.kind,
            base_state=base_state,
            sets=self.sets,
            settings=method_settings(self.config, trial.values),
            hyper_parameters=hyper_parameters_of(trial.values),
            best_on=None,
            reference=METHODS[trial.method].reference,
            shard_of=self.shard_of,
        )

    def score(self, logits: Mapping[str, np.ndarray]) -> Score:
        """A network's figures. Raises `UserError` where its answers are not finite."""
        labels = self.data.clips.labels.numpy()
        forget, validation = labels[self.request.forget], labels[self.validation]
        losses = cross_entropy(logits["forget"], forget)
        confidences = np.exp(-losses)
        return Score(
            confidence=float(confidences.mean()),
            confidence_error=paired_error(confidences),
            forget_accuracy=float((logits["forget"].argmax(axis=1) == forget).mean()),
            forget_loss=float(losses.mean()),
            validation_accuracy=float((logits["validation"].argmax(axis=1) == validation).mean()),
        )


def rehearse(config: Config, data: Data, request: Request) -> Rehearsal:
    """Part the remain set's recordings into fit and validation part, one eighth, drawn with `split_seed`.

    Copies of forget or fit clips validate nothing. Raises `UserError` where no clip is left to validate on.
    """
    recordings = data.clips.recordings[request.remain]
    drawn = train_test_split(np.unique(recordings), test_size=VALIDATION_SHARE, random_state=config.data.split_seed)
    fit, rest = (request.remain[np.isin(recordings, part)] for part in drawn)
    known = {data.clips.hashes[i] for i in (*request.forget, *fit)}
    validation = np.array([i for i in rest if data.clips.hashes[i] not in known], dtype=np.int64)
    if len(validation) == 0:
        raise UserError(
            f"forget={config.request.forget!r} leaves {len(request.remain)} remain clips, of which none can validate: "
            "ask for fewer"
        )
    return Rehearsal(config, data, request, fit, validation)


def tune(config: Config, store: Store, engine: Engine, parent: Run | None = None) -> pd.DataFrame:
    """Try `n_trials` configurations of every method and write the best ones for `method_config`.

    Returns one row per trial: method, trial, score, chosen, the values and the figures. Finished trials are reused.
    """
    searched = _searched(check_methods(config))
    bases, data = find_bases(store, config, trains=True)
    config = bases.config
    shard_of = bases.shards[config.training.seeds[0]]
    rehearsal = dataclasses.replace(rehearse(config, data, resolve(config, data)), shard_of=shard_of)
    trials = [
        trial
        for method in searched
        for trial in draw_trials(
            method, METHODS[method].search, config.methods.n_trials, config.training.learning_rate,
            config.request.forget_seed,
        )
    ]  # fmt: skip
    with stage_run(store, parent, "tune", config, _tags(rehearsal)) as run:
        run.dataset(config.data.label, data.digest, len(data.split.train), "tune")
        table, reference, base = Search(rehearsal, store, engine, run).run(trials)
        _report(run, rehearsal, table, trials)
        say(recommendation(table, reference, base, command("unlearn", method_config=run.address(TUNED))))
    return table


def _searched(methods: Sequence[str]) -> list[str]:
    """The methods that declare ranges. Raises `UserError` where none does."""
    found = [method for method in methods if METHODS[method].search]
    left = [method for method in methods if method not in found]
    if left:
        say(f"nothing to tune: {', '.join(left)} (no ranges declared)")
    if not found:
        tunable = ", ".join(name for name, m in METHODS.items() if m.search)
        raise UserError(f"methods={','.join(methods)!r} has nothing to tune: choose from {tunable}")
    return found


def _tags(rehearsal: Rehearsal) -> dict[str, str]:
    request = rehearsal.request
    return {**base_tags(rehearsal.config), "request": request.name, "request_hash": request.hash}


class Search:
    """All trials of a rehearsal: reuse what the store has, run the rest, log each as it is ready."""

    def __init__(self, rehearsal: Rehearsal, store: Store, engine: Engine, parent: Run) -> None:
        self.rehearsal, self.store, self.engine, self.parent = rehearsal, store, engine, parent

    def run(self, trials: Sequence[Trial]) -> tuple[pd.DataFrame, Score, Score]:
        """One row per trial, the methods in their order, the best first; the figures of the reference, of the base."""
        finished: dict[str, Score] = {}
        for trial in trials:
            if (known := self._known(self.rehearsal.fingerprint(trial))) is not None:
                finished[trial.key] = Score.from_metrics(known)
        yardsticks = self._known(self.rehearsal.id)
        pending = [trial for trial in trials if trial.key not in finished]
        if finished:
            say(f"reusing {len(finished)} finished trials")
        base_state: Mapping[str, np.ndarray] = {}
        if pending or yardsticks is None:
            yardsticks, base_state = self._train(yardsticks)
        reference, base = (Score.from_metrics(yardsticks, prefix) for prefix in ("", "base/"))
        for trial, score in self._run(pending, base_state, reference):
            finished[trial.key] = score
        if not finished:
            raise UserError("every trial failed: the reasons are above and in their runs, as the tag failed_reason")
        done = [trial for trial in trials if trial.key in finished]
        return trials_table(done, finished, reference, base), reference, base

    def _known(self, fingerprint: str) -> Mapping[str, float] | None:
        if self.rehearsal.config.store.force:
            return None
        found = queries.newest(self.store, {"fingerprint": fingerprint, "stage": "tune"})
        return None if found is None else found.metrics

    def _train(self, known: Mapping[str, float] | None) -> tuple[Mapping[str, float], Mapping[str, np.ndarray]]:
        """The figures of reference and base, and the base's weights: not stored, its seed gives them again."""
        jobs = self.rehearsal.train_jobs()
        names = {job.seed: name for name, job in jobs.items() if name == "base" or known is None}
        results: dict[str, Result] = {}
        wanted = [job for job in jobs.values() if job.seed in names]
        for job, result in self.engine.run(train_job, wanted, "networks of the rehearsal"):
            if isinstance(result, Failed):
                raise UserError(f"tune: the rehearsal's {names[job.seed]} cannot be trained: {result.reason}")
            results[names[job.seed]] = result
        if known is None:
            reference, base = (self.rehearsal.score(results[name].logits) for name in ("reference", "base"))
            known = self._log_reference(reference, base, results["reference"])
        return known, results["base"].state

    def _log_reference(self, reference: Score, base: Score, result: Result) -> dict[str, float]:
        tags = {**_tags(self.rehearsal), "seed": str(self.rehearsal.reference_seed), "fingerprint": self.rehearsal.id}
        metrics = reference.as_metrics() | {f"base/{name}": value for name, value in base.as_metrics().items()}
        metrics |= {"base/score": base.against(reference), "time/total_s": result.total_seconds}
        params = self.rehearsal.params
        with child_run(self.store, self.parent, "tune", "reference", "retrained reference", tags, params) as run:
            run.metrics(metrics)
        say(
            f"  reference: confidence {reference.confidence:.3f} on the forget set, accuracy "
            f"{reference.validation_accuracy:.3f} on the validation part; doing nothing scores "
            f"{base.against(reference):.3f}"
            + ("" if told_apart(base, reference) else ", which cannot be told from retraining on this request")
        )
        return metrics

    def _run(
        self, pending: Sequence[Trial], base_state: Mapping[str, np.ndarray], reference: Score
    ) -> list[tuple[Trial, Score]]:
        # Jobs are told apart by identity: their arrays do not compare.
        jobs = {id(job): (job, trial) for trial in pending for job in [self.rehearsal.job(trial, base_state)]}
        scored = []
        for job, result in self.engine.run(trial_job, [job for job, _ in jobs.values()], "trials"):
            trial = jobs[id(job)][1]
            if isinstance(result, Failed):
                log_failed(*self._own(trial), result.reason, result.trace)
                continue
            score = self._score(result)
            self._log(trial, score, reference, result)
            scored.append((trial, score))
        return scored

    def _score(self, result: Result) -> Score:
        try:
            return self.rehearsal.score(result.logits)
        except UserError:  # diverged: a rate too high is what a search finds out
            return Score(confidence=np.nan, forget_accuracy=np.nan, forget_loss=np.nan, validation_accuracy=np.nan)

    def _own(self, trial: Trial) -> Child:
        """What a trial's run is made of."""
        name = f"{trial.method} trial-{trial.number}"
        tags = {
            **_tags(self.rehearsal),
            "seed": str(self.rehearsal.base_seed),
            "method": trial.method,
            "trial": str(trial.number),
            "fingerprint": self.rehearsal.fingerprint(trial),
        }
        params = self.rehearsal.params | {f"tuned.{key}": str(value) for key, value in trial.values.items()}
        return self.store, self.parent, "tune", "trial", name, tags, params

    def _log(self, trial: Trial, score: Score, reference: Score, result: Result) -> None:
        value = score.against(reference)
        with child_run(*self._own(trial)) as run:
            run.metrics({**score.as_metrics(), "tune/score": value, "time/total_s": result.total_seconds})
        shown = ", ".join(f"{key} {drawn}" for key, drawn in trial.values.items()) or "as it comes"
        say(f"  {trial.method:<19} score {value:.3f}  {result.total_seconds:.1f} s  {shown}")


def trial_job(job: UnlearnJob) -> Result:
    """As `unlearn_job`, without sending the weights back: a trial is worth its answers alone."""
    return dataclasses.replace(unlearn_job(job), state={})


def _report(run: Run, rehearsal: Rehearsal, table: pd.DataFrame, trials: Sequence[Trial]) -> None:
    """Artifacts tuned.yaml and trials.csv, and figures of the parent."""
    chosen = {
        trial.method: dict(trial.values)
        for row in table[table["chosen"]].itertuples()
        for trial in trials
        if (trial.method, trial.number) == (row.method, row.trial)
    }
    run.csv("trials.csv", table)
    run.text(TUNED, tuned_yaml(rehearsal.config.registered_model, rehearsal.request.name, table, chosen))
    best = table[table["chosen"]].set_index("method")["score"]
    as_it_comes = table[table["trial"] == 0].set_index("method")["score"]
    run.metrics({f"{method}/score": float(score) for method, score in best.items()})
    better = table[table["chosen"]].set_index("method")["better"]
    lines = ["| method | as it comes | tuned | better than nothing | values |", "|---|---|---|---|---|"]
    for method, values in chosen.items():
        shown = ", ".join(f"{name} {value}" for name, value in values.items()) or "as it comes"
        before = f"{as_it_comes[method]:.3f}" if method in as_it_comes else "failed"
        lines.append(f"| {method} | {before} | {best[method]:.3f} | {better[method]} | {shown} |")
    run.note("\n".join(lines))
    say("\n".join(lines))
