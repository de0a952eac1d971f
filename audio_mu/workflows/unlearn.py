"""Unlearn a request from the base models with every method and seed, and measure what is left."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from audio_mu.audit.one_model import Evaluator, Logits, log_audit, not_recovered
from audio_mu.audit.performance import cross_entropy
from audio_mu.compute.engine import Engine
from audio_mu.compute.jobs import Result, UnlearnJob, unlearn_job
from audio_mu.config import REPAIR_FIELDS, Config, parse
from audio_mu.errors import UserError
from audio_mu.names import RETRAINS
from audio_mu.progress import say
from audio_mu.requests.ledger import RETIRED
from audio_mu.requests.request import Request, request_table, resolve_request
from audio_mu.store import queries, registry
from audio_mu.store.artifacts import list_files, read_npz
from audio_mu.store.handle import Store
from audio_mu.store.queries import Finished
from audio_mu.store.runs import Run, child_run
from audio_mu.system.hashing import hash_of
from audio_mu.system.reading import plain_yaml, read_text
from audio_mu.unlearning import METHODS, Settings, choose
from audio_mu.workflows.attack import find_attack, load_attack
from audio_mu.workflows.bases import Bases, base_logits, find_bases
from audio_mu.workflows.data import Data
from audio_mu.workflows.fingerprints import (
    MEASURED_SOURCE,
    machine,
    network_identity,
    optimizer_settings,
    problem,
    source_hash,
)
from audio_mu.workflows.register import register_unlearned
from audio_mu.workflows.stage import base_tags, stage_run
from audio_mu.workflows.train import log_servable

ORIGINAL = "original"
LARGEST_SETTINGS = 1 << 18  # bytes of the file of method_config


def check_methods(config: Config) -> tuple[str, ...]:
    """The configured methods. Raises `UserError` for unknown ones and unknown hyper-parameters, before any work."""
    names = choose(config.methods.methods, config.request.forget)
    _hyper_parameters(config)
    return names


def _hyper_parameters(config: Config) -> dict[str, dict[str, Any]]:
    """Method → its given hyper-parameters, from the YAML file of `method_config`."""
    if config.methods.method_config is None:
        return {}
    where = f"method_config={str(config.methods.method_config)!r}"
    try:
        content = plain_yaml(read_text(config.methods.method_config, LARGEST_SETTINGS)) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{where} is not readable YAML ({' '.join(str(error).split())[:100]}): mend it") from None
    if not isinstance(content, dict):
        raise UserError(f"{where} holds no mapping: write method names, each with its hyper-parameters")
    for name, values in content.items():
        if name not in METHODS:
            raise UserError(f"{where} names the method {str(name)[:80]!r}: choose from {', '.join(METHODS)}")
        allowed = METHODS[name].configurable
        if not isinstance(values, dict) or set(values) - set(allowed):
            got = repr(values)[:200]
            raise UserError(f"{where}: {name} takes {', '.join(allowed) or 'no hyper-parameters'}, got {got}")
        for key, default in METHODS[name].hyper_parameters.items():
            if key in values and not _fits(values[key], default):
                got = repr(values[key])[:200]
                raise UserError(f"{where}: {name}: {key}={got} is not of the kind of its default, {default!r}")
        try:
            own_settings(values)
        except UserError as error:
            raise UserError(f"{where}: {name}: {error}") from None
    return content


def _fits(value: Any, default: Any) -> bool:
    """Whether a value can stand for a default: true or false, text, a number of the same kind and no other sign."""
    if default is None:
        return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    if isinstance(default, bool | str):
        return isinstance(value, type(default))
    if not isinstance(default, int | float):
        return True  # of the user's own method
    kinds = int if isinstance(default, int) else int | float
    return isinstance(value, kinds) and not isinstance(value, bool) and (value >= 0 or default < 0)


def own_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """The repair settings among a method's values, which for this method win over the configured ones.

    Raises `UserError` where one is not allowed.
    """
    given = {name: parse(name, str(value)) for name, value in values.items() if name in REPAIR_FIELDS}
    return {name: value for name, value in given.items() if value is not None}


def method_settings(config: Config, values: Mapping[str, Any]) -> Settings:
    """What a method trains with: the base recipe and the repair settings, with the method's own where it has some."""
    settings = Settings(
        optimizer=optimizer_settings(config),
        batch_size=config.training.batch_size,
        n_epochs=config.training.n_epochs,
        n_epoch_impair=config.repair.n_epoch_impair,
        n_epoch_repair=config.repair.n_epoch_repair,
        impair_learning_rate=config.repair.impair_learning_rate,
        repair_learning_rate=config.repair.repair_learning_rate,
    )
    return dataclasses.replace(settings, **own_settings(values))


def hyper_parameters_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """A method's values without the repair settings among them."""
    return {name: value for name, value in values.items() if name not in REPAIR_FIELDS}


@dataclass(frozen=True)
class Cell:
    """Everything that the runs of one cell share; see `tags` for what they carry."""

    config: Config
    bases: Bases
    data: Data
    request: Request
    attack: Finished
    hyper_parameters: Mapping[str, Mapping[str, Any]]

    @property
    def id(self) -> str:
        """Hash of everything except seed and method: attack models and the source of every figure too.

        Figures that other attack models or other definitions have given are of another cell, never averaged with these.
        """
        config = self.config
        return hash_of(
            [
                self.data.digest, self.data.split.kind, config.data.split_seed, config.data.pipeline,
                network_identity(config), config.base_recipe, self.request.hash, config.request.duplicates,
                config.as_text(REPAIR_FIELDS),
                {name: dict(values) for name, values in sorted(self.hyper_parameters.items())},
                self.attack.tags["fingerprint"], source_hash(MEASURED_SOURCE),
                *([self.bases.origin] if self.bases.origin else []),
            ]
        )[:16]  # fmt: skip

    @property
    def sets(self) -> dict[str, np.ndarray]:
        """The sets that are evaluated, by name: the request's, and those of the requests before it."""
        return self.request.sets() | {name: found.clips for name, found in self.data.earlier.items()}

    def fingerprint(self, seed: int, method: str) -> str:
        """Hash of what this step reads. A method that only retrains reads no repair settings."""
        reads = "" if method in RETRAINS else self.id
        return hash_of(
            [
                "unlearn", seed, method, self.bases.versions[seed].tags["fingerprint"], self.request.hash, reads,
                dict(self.hyper_parameters.get(method, {})), self.attack.tags["fingerprint"], machine(self.config),
                source_hash(MEASURED_SOURCE),
                *(["deep audits"] if self.config.methods.deep_audits else []),
                *([METHODS[method].digest] if method in METHODS and METHODS[method].digest else []),
            ]
        )  # fmt: skip

    def tags(self, seed: int | None = None, method: str | None = None) -> dict[str, str]:
        """The tags of a run of this cell."""
        shared = {
            **base_tags(self.config),
            "split": self.data.split.kind,
            "request": self.request.name,
            "request_hash": self.request.hash,
            "cell": self.id,
            "clips_digest": self.data.digest,
            "attack_run_id": self.attack.id,
        }
        if seed is None or method is None:
            return shared
        version = self.bases.versions[seed]
        return shared | {
            "seed": str(seed),
            "method": method,
            "fingerprint": self.fingerprint(seed, method),
            "base_run_id": version.run_id,
            "base_version": version.version,
        }


@dataclass
class Seed:
    """What one seed's methods are compared with, and the results that wait for it."""

    base_state: dict[str, np.ndarray]
    naive_metrics: Mapping[str, float] | None = None
    naive_logits: Logits | None = None


def unlearn(config: Config, store: Store, engine: Engine, parent: Run | None = None) -> str:
    """Run what the store does not have yet and log every figure; return the cell's id."""
    methods = check_methods(config)
    bases, data = find_bases(store, config)
    config = bases.config
    request = _resolve(config, data)
    attack = find_attack(store, bases)
    cell = Cell(config, bases, data, request, attack, _hyper_parameters(config))
    evaluator = Evaluator(request, data.clips.labels.numpy(), load_attack(store, attack), data.earlier)
    versions = ", ".join(f"{seed} (version {version.version})" for seed, version in bases.versions.items())
    say(f"base models of {config.registered_model}, seeds {versions}")
    with stage_run(store, parent, "unlearn", config, cell.tags()) as run:
        _describe(run, cell)
        Unlearning(cell, store, engine, run, evaluator).run(methods)
    if parent is None:  # the whole chain registers after its comparison
        register_unlearned(config, store, run, cell.id)
        say("the methods side by side, averaged over the seeds: run `mlflow run . -e compare` with the same data")
    return cell.id


def _resolve(config: Config, data: Data) -> Request:
    """The request among what the ledger leaves. Raises `UserError`, with what it leaves out, where it is not there."""
    try:
        return resolve_request(config.request, data.clips, data.split)
    except UserError as error:
        if not data.left_out:
            raise
        names = ", ".join(entry.request for entry in data.left_out)
        raise UserError(f"{error} (answered requests are left out: {names}; ledger=ignore takes them in)") from None


def _describe(run: Run, cell: Cell) -> None:
    request, clips = cell.request, cell.data.clips
    run.csv("request.csv", request_table(cell.config.request, clips, request))
    sizes = {
        "n_forget": len(request.forget),
        "n_remain": len(request.remain),
        "n_test": len(request.test),
        "n_held_out": len(request.held_out),
        "n_requested": request.n_requested,
        "n_duplicates_added": request.n_duplicates_added,
    }
    run.metrics({f"request/{name}": float(value) for name, value in sizes.items()})
    run.dataset(cell.config.data.label, cell.data.digest, len(cell.data.split.train), "unlearn")
    say(f"request {request.name}: " + ", ".join(f"{name[2:]} {value}" for name, value in sizes.items()))


class Unlearning:
    """One request's work over methods and seeds: reuse, run, measure against naive, log."""

    def __init__(self, cell: Cell, store: Store, engine: Engine, parent: Run, evaluator: Evaluator) -> None:
        self.cell, self.store, self.engine, self.parent, self.evaluator = cell, store, engine, parent, evaluator
        self.seeds: dict[int, Seed] = {}
        self.late: dict[int, list[tuple[str, Result]]] = {}

    def run(self, methods: tuple[str, ...]) -> None:
        """Reuse what is there; run naive first, the rest after it; log each result once naive's is known."""
        pending: list[tuple[int, str]] = []
        adopted: list[tuple[int, str, Finished]] = []
        for seed in self.cell.bases.versions:
            for method in (ORIGINAL, *methods):
                finished = self._finished(seed, method)
                if finished is None or self.cell.config.store.force:
                    pending.append((seed, method))
                elif finished.tags["cell"] != self.cell.id:
                    adopted.append((seed, method, finished))
        n_reused = len(self.cell.bases.versions) * (len(methods) + 1) - len(pending) - len(adopted)
        if n_reused or adopted:
            say(f"reusing {n_reused} finished runs of this cell and {len(adopted)} of another one")
        for seed, version in self.cell.bases.versions.items():
            needed = any(s == seed for s, _ in pending)
            state = registry.load_state(version.source) if needed else {}
            self.seeds[seed] = Seed(_network_state(state))
        for seed, method, finished in adopted:
            self._adopt(seed, method, finished)
        for seed in self.seeds:
            self._recall_naive(seed, renewed=(seed, "naive") in pending)
        self._run_pending(pending)
        for seed in self.seeds:
            self._complete(seed)

    def _finished(self, seed: int, method: str) -> Finished | None:
        """The newest finished run of this step, of this cell if there is one; none whose model was removed since."""
        tags = {"fingerprint": self.cell.fingerprint(seed, method), "stage": "unlearn"}
        found = queries.newest(self.store, tags | {"cell": self.cell.id}) or queries.newest(self.store, tags)
        return None if found is not None and RETIRED in found.tags else found

    def _run_pending(self, pending: list[tuple[int, str]]) -> None:
        waits_for_naive = {seed for seed, method in pending if method == "naive"}
        for seed, method in pending:
            if method == ORIGINAL:
                self._offer(seed, method, self._original(seed), waits_for_naive)
        jobs = [self._job(seed, method) for seed, method in pending if method != ORIGINAL]
        jobs.sort(key=lambda job: job.method != "naive")
        for job, result in self.engine.run(unlearn_job, jobs, f"unlearning {self.cell.request.name}"):
            self._offer(job.seed, job.method, result, waits_for_naive)

    def _offer(self, seed: int, method: str, result: Result, waits_for_naive: set[int]) -> None:
        """Log a result, after naive's of the same seed where that is still being computed."""
        if method == "naive":
            self._log(seed, method, result)
            waits_for_naive.discard(seed)
            for waiting, late in self.late.pop(seed, []):
                self._log(seed, waiting, late)
        elif seed in waits_for_naive:
            self.late.setdefault(seed, []).append((method, result))
        else:
            self._log(seed, method, result)

    def _original(self, seed: int) -> Result:
        """The base model's row, from the logits that the run behind it stored."""
        stored, ids = base_logits(self.store, self.cell.bases.versions[seed]), self.cell.data.clips.ids
        # It may have been made before a recording of an earlier request was readable.
        sets = {
            name: rows
            for name, rows in self.cell.sets.items()
            if name not in self.cell.data.earlier or all(ids[i] in stored for i in rows)
        }
        return Result(
            state=self.seeds[seed].base_state,
            logits={name: np.stack([stored[ids[i]] for i in rows]) for name, rows in sets.items()},
            impair_seconds=0.0,
            repair_seconds=0.0,
            cpu_seconds=0.0,
            figures={},
            curves={},
            warnings=(),
        )

    def _job(self, seed: int, method: str) -> UnlearnJob:
        config, values = self.cell.config, self.cell.hyper_parameters.get(method, {})
        return UnlearnJob(
            problem=problem(config, self.cell.data.clips),
            seed=seed,
            method=method,
            request=self.cell.request.kind,
            base_state=self.seeds[seed].base_state,
            sets=self.cell.sets,
            settings=method_settings(config, values),
            hyper_parameters=hyper_parameters_of(values),
            best_on="test" if config.training.checkpoint == "best_test" else None,
            deep_audits=config.methods.deep_audits,
            reference=METHODS[method].reference,
        )

    def _log(self, seed: int, method: str, result: Result) -> None:
        metrics = self.evaluator.alone(result.logits, seed)
        if method != ORIGINAL:
            metrics |= {
                "time/impair_s": result.impair_seconds,
                "time/repair_s": result.repair_seconds,
                "time/total_s": result.total_seconds,
                "time/cpu_s": result.cpu_seconds,
            }
        metrics |= result.figures
        known = self.seeds[seed]
        if method == "naive":
            known.naive_metrics, known.naive_logits = metrics, result.logits
        tags = self.cell.tags(seed, method)
        params = {**self.cell.config.as_text(), "seed": str(seed), "method": method}
        with child_run(self.store, self.parent, "unlearn", "method", f"{method} seed-{seed}", tags, params) as run:
            # Before the model: an erasure could not tell what the model of a killed run was trained on.
            self._log_artifacts(run, result.logits)
            # Before the figures: MLflow would read every figure of the run again to make it the model's.
            keeps, config = self._keeps_model(method), self.cell.config
            model = log_servable(run, config, self.cell.data, seed, result) if keeps else None
            run.curves(result.curves)
            metrics |= self._compare_with_naive(run, seed, method, metrics, result.logits)
            run.metrics(metrics, model)
            self._log_audit(run, seed, method, metrics, result.logits)
            for warning in result.warnings:
                say(f"WARNING: {method} seed {seed}: {warning}")
            if result.warnings:
                run.tags({"warnings": "; ".join(result.warnings)})
        say(
            f"  seed {seed} {method:<19} forget {metrics['forget/accuracy']:.3f}  "
            f"remain {metrics['remain/accuracy']:.3f}  test {metrics['test/accuracy']:.3f}  "
            f"MIA {metrics['mia/score']:.3f}  {result.total_seconds:.1f} s"
        )

    def _keeps_model(self, method: str) -> bool:
        wanted = self.cell.config.methods.save_models
        # The original's model is the registered base version.
        return method != ORIGINAL and (wanted == "all" or (wanted == "naive" and method == "naive"))

    def _compare_with_naive(
        self, run: Run, seed: int, method: str, metrics: Mapping[str, float], logits: Logits
    ) -> dict[str, float]:
        known = self.seeds[seed]
        if known.naive_metrics is None or known.naive_logits is None or method == "naive":
            return {}
        if method != ORIGINAL and not_recovered(metrics, known.naive_metrics):
            run.tags({"not_recovered": "true"})
            say(
                f"WARNING: {method} seed {seed} has not recovered: remain accuracy "
                f"{metrics['remain/accuracy']:.3f}, naive {known.naive_metrics['remain/accuracy']:.3f}"
            )
        return self.evaluator.against_naive(metrics, logits, known.naive_metrics, known.naive_logits)

    def _log_audit(self, run: Run, seed: int, method: str, metrics: Mapping[str, float], logits: Logits) -> None:
        naive_logits = None if method == "naive" else self.seeds[seed].naive_logits
        log_audit(run, self.evaluator, self.cell.data.clips.ids, seed, logits, metrics, naive_logits)

    def _log_artifacts(self, run: Run, logits: Logits) -> None:
        clips = self.cell.data.clips
        run.csv("request.csv", request_table(self.cell.config.request, clips, self.cell.request))
        labels = clips.labels.numpy()
        for name, indices in ((name, self.cell.sets[name]) for name in logits):
            ids = [clips.ids[i] for i in indices]
            table = {
                "clip_id": ids,
                "label": [clips.class_names[labels[i]] for i in indices],
                "speaker": [clips.speakers[i] for i in indices],
                "loss": cross_entropy(logits[name], labels[indices]),
            }
            run.csv(f"losses/{name}.csv", pd.DataFrame(table))
            run.npz(f"logits/{name}.npz", clip_id=np.array(ids), label=labels[indices], logits=logits[name])

    def _stored_logits(self, run_id: str) -> dict[str, np.ndarray]:
        present = {Path(path).stem for path in list_files(self.store, run_id, "logits")}
        names = [name for name in self.cell.sets if name in present]
        return {name: read_npz(self.store, run_id, f"logits/{name}.npz")["logits"] for name in names}

    def _recall_naive(self, seed: int, renewed: bool) -> None:
        """Take naive of this cell from the store, unless it is about to be computed."""
        tags = {"cell": self.cell.id, "seed": str(seed), "method": "naive", "stage": "unlearn"}
        finished = None if renewed else queries.newest(self.store, tags)
        if finished is not None:
            known = self.seeds[seed]
            known.naive_metrics, known.naive_logits = finished.metrics, self._stored_logits(finished.id)

    def _adopt(self, seed: int, method: str, finished: Finished) -> None:
        """Give this cell its own run of a result that another cell has, without computing or storing it again."""
        tags = self.cell.tags(seed, method) | {"reused_run_id": finished.id}
        params = {**self.cell.config.as_text(), "seed": str(seed), "method": method}
        with child_run(self.store, self.parent, "unlearn", "method", f"{method} seed-{seed}", tags, params) as run:
            logits = self._stored_logits(finished.id)
            self._log_artifacts(run, logits)
            run.metrics(finished.metrics)
            self._log_audit(run, seed, method, finished.metrics, logits)

    def _complete(self, seed: int) -> None:
        """Give earlier runs of this cell that were made without naive their distances to it."""
        known = self.seeds[seed]
        if known.naive_metrics is None or known.naive_logits is None:
            return
        tags = {"cell": self.cell.id, "seed": str(seed), "stage": "unlearn", "role": "method"}
        for finished in queries.find(self.store, tags):
            if finished.tags["method"] != "naive" and "distance/js" not in finished.metrics:
                run = Run(self.store, finished.id, finished.name)
                logits = self._stored_logits(finished.id)
                distances = self._compare_with_naive(run, seed, finished.tags["method"], finished.metrics, logits)
                self._log_audit(run, seed, finished.tags["method"], finished.metrics, logits)
                run.metrics(distances)  # last: they say that all of this is done


def _network_state(served: Mapping[str, Any]) -> dict[str, np.ndarray]:
    from audio_mu.models.waveform import network_state

    return registry.as_numpy(network_state(dict(served)))
