"""Reference models: trained like base models on random halves of the recordings, for attacks and for no other use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from audio_mu.audit.performance import logit_scaled_confidence
from audio_mu.base_models.fingerprints import (
    TRAINING_SOURCE,
    machine,
    network_identity,
    source_hash,
    training_job,
)
from audio_mu.compute.attempt import Failed, measured
from audio_mu.compute.engine import Engine
from audio_mu.compute.jobs import Result, TrainJob, reference_job
from audio_mu.config import Config
from audio_mu.config.parsers import BY_SPEAKER
from audio_mu.config.reads import OF_BASES
from audio_mu.data.catalog import composed
from audio_mu.data.clips import Clips, clips_digest
from audio_mu.data.together import as_one
from audio_mu.errors import UserError
from audio_mu.progress import say
from audio_mu.seeding import derive
from audio_mu.store import references as stored
from audio_mu.store.artifacts import Unreadable
from audio_mu.store.failed import log_failed
from audio_mu.store.handle import Store
from audio_mu.store.runs import Child, Run, child_run
from audio_mu.system.hashing import hash_of

POOL = "pool"


@dataclass(frozen=True)
class Pool:
    """The recordings that reference models are trained on halves of: rows of the clips, `trained` those of the training
    side. `tags`: of the base models' family. `shard_of`: of every clip, where there are shards."""

    config: Config
    clips: Clips
    rows: np.ndarray
    trained: np.ndarray
    tags: dict[str, str]
    shard_of: np.ndarray | None = None

    @property
    def by(self) -> str:
        """What halves are drawn of."""
        return self.config.attack.references_by

    @cached_property
    def family(self) -> str:
        """Hash of all that reference models share, whatever their number."""
        config, recipe, identity = self.config, self.config.data.recipe, self.clips.identity
        return hash_of(
            [
                "references", self.by, config.data.pipeline, network_identity(config), config.hashed_recipe,
                [recipe.momentum, recipe.logmel_shift, recipe.logmel_scale],
                clips_digest(identity[i] for i in self.rows), self.trained.tolist(), machine(config),
                source_hash(TRAINING_SOURCE),
                *([] if self.shard_of is None else [self.shard_of[self.rows].tolist()]),
            ]
        )  # fmt: skip

    def seed(self, number: int, purpose: str) -> int:
        """A seed of a reference model's own, which no base model has."""
        return derive(self.config.data.split_seed, "references", self.by, purpose, number) % 2**31

    def check(self) -> None:
        """Raise `UserError` where no halves can be drawn: of people who are not known, or all in one."""
        if self.by == BY_SPEAKER and (n := len({self.clips.speakers[i] for i in self.rows} - {""})) < 2:
            raise UserError(
                f"references_by='speaker' needs two people, {n} known: give speaker_pattern or labels with the "
                "speakers, or references_by=clip"
            )
        if (n := len(np.unique(self.units))) < 2:
            raise UserError(f"references={self.config.attack.references} needs two recordings, there is {n}: leave it")

    @cached_property
    def units(self) -> np.ndarray:
        """The number of what each recording is drawn with, int64 [rows].

        Copies and parts of one recording go together; with `references_by=speaker` all that a person says too.
        """
        keys = [
            [("audio", self.clips.hashes[i]), ("file", self.clips.files[i]), ("file", self.clips.sources[i])]
            for i in self.rows
        ]
        if self.by == BY_SPEAKER:
            names = [composed(self.clips.speakers[i]) for i in self.rows]
            keys = [[*own, *([("person", name)] if name else [])] for own, name in zip(keys, names)]
        first = as_one(range(len(keys)), ((i, key) for i, own in enumerate(keys) for key in own))
        return np.unique([first[i] for i in range(len(keys))], return_inverse=True)[1].astype(np.int64)

    def member(self, number: int) -> np.ndarray:
        """Which recordings a reference model learns, bool [rows].

        Models 2k and 2k + 1 have complementary halves, so that each recording is in exactly half of an even number of
        models, and more models change nothing of those that are there: as `split_dataset_for_training` of the code of
        Zarifzadeh et al. (privacytrustlab/ml_privacy_meter). The code of Carlini et al. (tensorflow/privacy,
        mi_lira_2021) balances each recording by its own over a number of models that is fixed beforehand.
        """
        n = int(self.units.max()) + 1
        drawn = np.random.default_rng(self.seed(number // 2, "halves")).permutation(n)
        first = np.zeros(n, dtype=bool)
        first[drawn[: n // 2]] = True
        return first[self.units] == (number % 2 == 0)

    def job(self, number: int) -> TrainJob:
        """A reference model as a piece of work. Nothing chooses a checkpoint: the test set is in the pool."""
        seed, train = self.seed(number, "training"), self.rows[self.member(number)]
        return training_job(self.config, self.clips, seed, train, {POOL: self.rows}, self.shard_of)

    def confidences(self, result: Result) -> np.ndarray:
        """Logit-scaled confidences [rows], computed in float64. Raises `UserError` where the network diverged."""
        return logit_scaled_confidence(result.logits[POOL], self.clips.labels.numpy()[self.rows])

    def columns(self, number: int, phi: np.ndarray) -> dict[str, np.ndarray]:
        """What is kept of a reference model: see `stored.COLUMNS`."""
        clips, rows = self.clips, self.rows
        texts = {
            name: np.array([of[i] for i in rows], dtype=np.str_)
            for name, of in (("clip_id", clips.ids), ("speaker", clips.speakers), ("audio_hash", clips.hashes),
                             ("source_hash", clips.sources))
        }  # fmt: skip
        label, member = clips.labels.numpy()[rows], self.member(number)
        return texts | {"label": label, "trained": self.trained, "member": member, "phi": phi.astype(np.float32)}


def train_references(
    pool: Pool, store: Store, engine: Engine, parent: Run, refuse_crossed: Callable[[], None]
) -> str | None:
    """Train the reference models that the store does not have yet, each a run of its own; return their family.

    refuse_crossed: called before anything is kept of a model; raises where somebody in the pool was answered meanwhile.
    None where all of them have failed.
    """
    wanted = pool.config.attack.references
    there = frozenset[int]() if pool.config.store.force else frozenset(_usable(store, pool.family))
    missing = [number for number in range(wanted) if number not in there]
    n_half, n_pool = len(pool.rows) // 2, len(pool.rows)
    of = "people" if pool.by == BY_SPEAKER else "recordings"
    say(
        f"reference models: {wanted} on halves of the {of} (about {n_half:,} of {n_pool:,} recordings), "
        f"{wanted - len(missing)} there, {len(missing)} to train"
    )
    jobs = {pool.seed(number, "training"): (number, pool.job(number)) for number in missing}
    done = wanted - len(missing)
    work = engine.run(reference_job, [job for _, job in jobs.values()], "reference models")
    for job, result in work:
        number, outcome = jobs[job.seed][0], measured(result, pool.confidences)
        if isinstance(outcome, Failed):
            log_failed(*_run_of(pool, parent, number), outcome.reason, outcome.trace)
            continue
        refuse_crossed()
        trained, phi = outcome
        with child_run(*_run_of(pool, parent, number)) as run:
            run.npz(stored.FILE, **pool.columns(number, phi))
            n_in = int(pool.member(number).sum())
            run.metrics({"references/n_in": n_in, "references/n": n_pool, "time/total_s": trained.total_seconds})
        done += 1
    return pool.family if done else None


def _usable(store: Store, family: str) -> Iterator[int]:
    """The numbers of the finished reference models whose files can be read."""
    for number, run in stored.finished(store, family).items():
        try:
            stored.read(store, run.id)
            yield number
        except Unreadable as error:
            say(f"  {run.name} is trained again: {error}")


def _run_of(pool: Pool, parent: Run, number: int) -> Child:
    """What a reference model's run is made of."""
    tags = {**pool.tags, "references_by": pool.by, stored.NUMBER: str(number), stored.FAMILY: pool.family}
    params = pool.config.as_text((*OF_BASES, "references_by"))
    return parent.store, parent, stored.STAGE, stored.ROLE, f"reference-{number}", tags, params
