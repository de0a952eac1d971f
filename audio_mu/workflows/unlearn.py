"""Unlearn a request from the base models with every method and seed, and measure what is left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from audio_mu.audit.one_model import Evaluator, Logits, not_recovered
from audio_mu.audit.performance import cross_entropy
from audio_mu.base_models.fingerprints import problem
from audio_mu.base_models.served import get_ready, log_servable
from audio_mu.base_models.shards import TABLE, shards_table
from audio_mu.compute.attempt import Failed, measured
from audio_mu.compute.cores import tell_idle, tell_precision
from audio_mu.compute.engine import Engine
from audio_mu.compute.jobs import Result, UnlearnJob, answers_to, unlearn_job
from audio_mu.config import Config
from audio_mu.config.commands import command
from audio_mu.models.waveform import network_state
from audio_mu.names import NAIVE, ORIGINAL
from audio_mu.progress import say
from audio_mu.requests.ledger import COPIES, RETIRED, SOUGHT
from audio_mu.requests.request import NeverTrainedError, request_table
from audio_mu.store import queries, registry
from audio_mu.store.artifacts import Unreadable, list_files, read_logits, unreadable
from audio_mu.store.failed import leave_out, log_failed
from audio_mu.store.handle import Store
from audio_mu.store.queries import Finished
from audio_mu.store.runs import Child, Run, child_run
from audio_mu.unlearning import METHODS
from audio_mu.workflows.attack import find_attack, load_attack
from audio_mu.workflows.bases import answer_never_trained, base_logits, find_bases, resume
from audio_mu.workflows.cells import is_measured
from audio_mu.workflows.data import resolve
from audio_mu.workflows.method_settings import (
    check_methods,
    given_hyper_parameters,
    hyper_parameters_of,
    method_settings,
    say_unread,
)
from audio_mu.workflows.register import finish
from audio_mu.workflows.stage import stage_run
from audio_mu.workflows.unlearning_cell import UnlearningCell


def unlearn(config: Config, store: Store, engine: Engine, parent: Run | None = None) -> str:
    """Run what the store does not have yet and log every figure; return the cell's id.

    Where no model has learnt anything of the request, it is entered into the ledger and there is no cell."""
    check_methods(config)
    if parent is None and (answered := resume(config, store)) is not None:
        return answered
    bases, data = find_bases(store, config)
    config = bases.config
    methods = check_methods(config)  # of the shards that these have
    try:
        request = resolve(config, data)
    except NeverTrainedError as found:
        answer_never_trained(config, store, data.clips, found)
        return ""
    attack = find_attack(store, bases)
    cell = UnlearningCell(config, bases, data, request, attack, given_hyper_parameters(config))
    clips, attackers = data.clips, load_attack(store, attack)
    evaluator = Evaluator(
        request,
        clips.labels.numpy(),
        attackers,
        data.earlier,
        clips.class_names,
        tuple(clips.speakers),
        clips.recordings,
    )
    versions = ", ".join(f"{seed} (version {version.version})" for seed, version in bases.versions.items())
    say(f"base models of {config.registered_model}, seeds {versions}")
    tell_precision(config)
    say_unread(config, methods)
    with stage_run(store, parent, "unlearn", config, cell.tags()) as run:
        _describe(run, cell)
        work = Unlearning(cell, store, engine, run, evaluator)
        work.run(methods)
        work.compare_with_naive()
        work.tell_copies()
    if parent is None:  # the whole chain registers after its comparison
        finish(config, store, run, cell.id, ("see the methods side by side", command("compare")))
    return cell.id


def _describe(run: Run, cell: UnlearningCell) -> None:
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
    """One request's work over methods and seeds, in two passes.

    The first pass logs every result alone, as it comes. The second pass gives distances to naive to every run of the
    cell that has none yet, those of earlier commands among them.
    """

    def __init__(self, cell: UnlearningCell, store: Store, engine: Engine, parent: Run, evaluator: Evaluator) -> None:
        self.cell, self.store, self.engine, self.parent, self.evaluator = cell, store, engine, parent, evaluator

    def run(self, methods: tuple[str, ...]) -> None:
        """Reuse the runs that the store has; compute and log the rest."""
        steps = [(seed, method) for seed in self.cell.bases.versions for method in (ORIGINAL, *methods)]
        pending: list[tuple[int, str]] = []
        adopted: list[tuple[int, str, Finished]] = []
        for seed, method in steps:
            finished = self._finished(seed, method)
            if finished is None or self.cell.config.store.force:
                pending.append((seed, method))
            elif finished.tags["cell"] != self.cell.id:
                adopted.append((seed, method, finished))
        n_reused = len(steps) - len(pending) - len(adopted)
        if n_reused or adopted:
            say(f"reusing {n_reused} finished runs of this cell and {len(adopted)} of another one")
        for seed, method, finished in adopted:
            try:
                self._adopt(seed, method, finished)
            except Unreadable as error:
                say(f"  {method} seed {seed} is done again: {error}")
                pending.append((seed, method))
        states = {seed: self._base_state(seed) for seed in dict(pending)}
        for seed, method in pending:
            if method == ORIGINAL:
                self._take(seed, method, self._original(seed, states[seed]))
        jobs = [self._job(seed, method, states[seed]) for seed, method in pending if method != ORIGINAL]
        jobs.sort(key=lambda job: job.method != NAIVE)  # the longest first
        tell_idle(self.cell.config.machine, len(jobs))
        for job, result in self.engine.run(unlearn_job, jobs, f"unlearning {self.cell.request.name}", self._get_ready):
            self._take(job.seed, job.method, result)

    def _get_ready(self) -> None:
        """While the methods compute: what their results are measured and logged with."""
        import sklearn.metrics  # noqa: F401  # takes a second, and the first figures would wait for it

        if self.cell.config.methods.save_models != "none":
            get_ready(self.cell.config, len(self.cell.data.clips.class_names), self.cell.config.training.seeds[0])

    def _finished(self, seed: int, method: str) -> Finished | None:
        """The newest finished run of this step, of this cell if there is one; none whose model was removed since."""
        tags = {"fingerprint": self.cell.fingerprint(seed, method), "stage": "unlearn"}
        found = queries.newest(self.store, tags | {"cell": self.cell.id}) or queries.newest(self.store, tags)
        return None if found is not None and RETIRED in found.tags else found

    def _base_state(self, seed: int) -> dict[str, np.ndarray]:
        return registry.as_numpy(network_state(registry.load_state(self.cell.bases.versions[seed].source)))

    def _original(self, seed: int, base_state: Mapping[str, np.ndarray]) -> Result:
        """The base model's row, from the logits that the run behind it stored."""
        stored, ids = base_logits(self.store, self.cell.bases.versions[seed]), self.cell.data.clips.ids
        # It may have been made before a recording of an earlier request was readable.
        sets = {
            name: rows
            for name, rows in self.cell.sets.items()
            if name not in self.cell.data.earlier or all(ids[i] in stored for i in rows)
        }
        logits = {name: np.stack([stored[ids[i]] for i in rows]) for name, rows in sets.items()}
        altered = answers_to(problem(self.cell.config, self.cell.data.clips), seed, base_state, self.cell.altered)
        return Result(base_state, logits, 0.0, 0.0, 0.0, altered=altered)

    def _job(self, seed: int, method: str, base_state: Mapping[str, np.ndarray]) -> UnlearnJob:
        config, values = self.cell.config, self.cell.hyper_parameters.get(method, {})
        return UnlearnJob(
            problem=problem(config, self.cell.data.clips),
            seed=seed,
            method=method,
            request=self.cell.request.kind,
            base_state=base_state,
            sets=self.cell.sets,
            settings=method_settings(config, values),
            hyper_parameters=hyper_parameters_of(values),
            best_on=config.training.chooses_on,
            deep_audits=config.methods.deep_audits,
            altered=self.cell.altered,
            reference=METHODS[method].reference,
            shard_of=self.cell.bases.shards[seed],
        )

    def _own(self, seed: int, method: str, rates: Mapping[str, float]) -> Child:
        """What a method's run is made of."""
        tags, params = self.cell.tags(seed, method), self.cell.params(seed, method, rates)
        return self.store, self.parent, "unlearn", "method", f"{method} seed-{seed}", tags, params

    def _take(self, seed: int, method: str, result: Result | Failed) -> None:
        """Log a result with its figures; one without figures as a failure, by its method and seed."""
        outcome = measured(
            result, lambda found: self.evaluator.alone(found.logits, seed) | self.cell.robust(found.altered)
        )
        if isinstance(outcome, Failed):
            log_failed(*self._own(seed, method, {}), outcome.reason, outcome.trace)
        else:
            self._log(seed, method, *outcome)

    def _log(self, seed: int, method: str, result: Result, alone: Mapping[str, float]) -> None:
        metrics = {**alone, **result.figures, **(result.seconds if method != ORIGINAL else {})}
        with child_run(*self._own(seed, method, result.rates)) as run:
            # Before the model: an erasure could not tell what the model of a killed run was trained on.
            self._log_artifacts(run, seed, result.logits)
            # Before the figures: MLflow would read every figure of the run again to make it the model's.
            keeps, config = self._keeps_model(method), self.cell.config
            model = log_servable(run, config, self.cell.data.clips.class_names, seed, result) if keeps else None
            run.curves(result.curves)
            run.metrics(metrics, model)
            self._log_audit(run, seed, result.logits, metrics)
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
        return method != ORIGINAL and (wanted == "all" or (wanted == "naive" and method == NAIVE))

    def _log_artifacts(self, run: Run, seed: int, logits: Logits) -> None:
        clips = self.cell.data.clips
        if (shard_of := self.cell.bases.shards[seed]) is not None:
            run.csv(TABLE, shards_table(clips, self.cell.request.remain, shard_of))
        run.csv("request.csv", request_table(self.cell.config.request, clips, self.cell.request))
        labels = clips.labels.numpy()
        for name, indices in ((name, self.cell.sets[name]) for name in logits):
            ids = [clips.ids[i] for i in indices]
            run.csv(
                f"losses/{name}.csv", clips.table(indices).assign(loss=cross_entropy(logits[name], labels[indices]))
            )
            run.npz(f"logits/{name}.npz", clip_id=np.array(ids), label=labels[indices], logits=logits[name])

    def _log_audit(self, run: Run, seed: int, logits: Logits, metrics: Mapping[str, float]) -> None:
        """Write a model's evidence into its run: what is in audit/, and its reading and worst classes as tags."""
        evidence = self.evaluator.evidence(logits, metrics)
        run.text("audit/audit.json", json.dumps(evidence, indent=1, ensure_ascii=False))
        run.text("audit/audit.md", "".join(f"- {reading}\n" for reading in evidence["readings"]))
        run.csv("audit/per_clip.csv", self.evaluator.per_clip(self.cell.data.clips.ids, logits, seed))
        classes, request = self.evaluator.by_class(logits), self.cell.request
        for name, table in classes.files.items():
            run.csv(f"audit/{name}", table)
        about = {"nonmembers": request.nonmembers_are, "speaker_confounded": str(request.speaker_confounded).lower()}
        run.tags({"audit": evidence["readings"][2], **about, **classes.worst})

    def _adopt(self, seed: int, method: str, finished: Finished) -> None:
        """Give this cell its own run of a result that another cell has, without computing or storing it again."""
        logits = self._stored_logits(finished.id)
        with child_run(*self._own(seed, method, {})) as run:
            run.tags({"reused_run_id": finished.id})
            self._log_artifacts(run, seed, logits)
            run.metrics(finished.metrics)
            self._log_audit(run, seed, logits, finished.metrics)

    def _stored_logits(self, run_id: str) -> dict[str, np.ndarray]:
        """A finished run's logits by set. Raises `Unreadable` where one is damaged, or of other recordings."""
        present = {Path(path).stem for path in list_files(self.store, run_id, "logits")}
        found = {}
        for name, clips in self.cell.sets.items():
            if name in present or name not in self.cell.data.earlier:  # see `_original`
                path = f"logits/{name}.npz"
                found[name] = read_logits(self.store, run_id, path)["logits"]
                if (has := len(found[name])) != len(clips):
                    raise unreadable(self.store, run_id, path, f"it has {has} of {len(clips)} recordings")
        return found

    def compare_with_naive(self) -> None:
        """Give every run of the cell that lacks some its distances to naive, gaps, their errors, and speed-up."""
        tags = {"cell": self.cell.id, "stage": "unlearn", "role": "method"}
        found = queries.find(self.store, tags)
        for seed in self.cell.bases.versions:
            naive, original = self._finished(seed, NAIVE), self._finished(seed, ORIGINAL)
            alone = [
                run for run in found
                if run.tags["seed"] == str(seed) and run.tags["method"] != NAIVE
                and not ("distance/js" in run.metrics and is_measured(run, original is not None))
            ]  # fmt: skip
            if naive is None or not alone:
                continue
            alone = self._of_this_machine(seed, alone)
            naive_logits = self._readable_logits(naive)
            before = self._readable_logits(original) if original else None
            if naive_logits is None or (original and before is None):
                say(f"note: seed {seed}: nothing is compared with naive before that")
                continue
            for finished in reversed(alone):  # in the order in which they were made
                if (logits := self._readable_logits(finished)) is not None:
                    self._compare(finished, logits, naive.metrics, naive_logits, before)

    def _readable_logits(self, finished: Finished) -> dict[str, np.ndarray] | None:
        """A finished run's logits; None, and told, where they cannot be read."""
        try:
            return self._stored_logits(finished.id)
        except Unreadable as error:
            leave_out(self.store, finished, error)
            return None

    def tell_copies(self) -> None:
        """Give the runs of the cell that an earlier command made what this one has searched."""
        found = queries.find(self.store, {"cell": self.cell.id, "stage": "unlearn", "role": "method"})
        now = {name: self.cell.tags()[name] for name in (COPIES, SOUGHT)}
        for run in found if now[SOUGHT] == "true" else ():
            if run.tags.get(SOUGHT) != "true":
                Run(self.store, run.id, run.name).tags(now)

    def _of_this_machine(self, seed: int, runs: Sequence[Finished]) -> list[Finished]:
        """The runs that this command would make again as they are: naive's times are measured as theirs were."""
        own = [run for run in runs if self.cell.would_make(run)]
        other = {run.tags["method"] for run in runs if run not in own} - {ORIGINAL}
        if left := sorted(name for name in other if self._finished(seed, name) is None):
            say(
                f"note: seed {seed}: not compared with naive: {', '.join(left)}, made with other threads, "
                "another device or other code than this naive"
            )
        return own

    def _compare(
        self, finished: Finished, logits: Logits, naive: Mapping[str, float], naive_logits: Logits,
        original: Logits | None,
    ) -> None:  # fmt: skip
        run, metrics = Run(self.store, finished.id, finished.name), finished.metrics
        seed, method = int(finished.tags["seed"]), finished.tags["method"]
        if method != ORIGINAL and not_recovered(metrics, naive):
            run.tags({"not_recovered": "true"})
            say(
                f"WARNING: {method} seed {seed} has not recovered: remain accuracy {metrics['remain/accuracy']:.3f}, "
                f"naive {naive['remain/accuracy']:.3f}"
            )
        run.csv("audit/per_clip.csv", self.evaluator.per_clip(self.cell.data.clips.ids, logits, seed, naive_logits))
        distances = self.evaluator.against_naive(metrics, logits, naive, naive_logits)
        distances |= self.evaluator.certainty(logits, naive_logits, original)
        for kind, worst in self.evaluator.worst(logits, naive_logits).items():
            run.tags({f"worst_{kind}": f"{worst.name} ({worst.n} recordings)"})
            distances |= {f"worst/{kind}_gap": worst.gap, f"worst/{kind}_high": worst.high}
        run.metrics(distances, registry.logged_model(self.store, finished.id))  # last: they say that all is done
