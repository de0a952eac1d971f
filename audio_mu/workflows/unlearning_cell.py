"""The cell of a request: everything that its runs share, and what each of them is known by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from audio_mu.audit.robust import robust_figures
from audio_mu.base_models.fingerprints import MEASURED_SOURCE, machine, network_identity, source_hash
from audio_mu.base_models.shards import shard_tags
from audio_mu.config import REPAIR_FIELDS, Config
from audio_mu.config.parameters import DEEP, ROBUST
from audio_mu.config.parsers import as_text
from audio_mu.data.altered import Altered, altered_copies
from audio_mu.errors import counted
from audio_mu.names import ADOPTED, RECIPE_KNOWN
from audio_mu.progress import say
from audio_mu.requests.ledger import COPIES, SOUGHT
from audio_mu.requests.probable import NOT_SOUGHT
from audio_mu.requests.request import Request
from audio_mu.store.queries import Finished
from audio_mu.system.hashing import hash_of
from audio_mu.unlearning import METHODS
from audio_mu.workflows.bases import Bases
from audio_mu.workflows.data import Data
from audio_mu.workflows.method_settings import method_settings
from audio_mu.workflows.stage import base_params, base_tags

AUDITS = ((), (DEEP,), (ROBUST,), (DEEP, ROBUST))
"""The audits on request that a run may have been made with."""


@dataclass(frozen=True)
class UnlearningCell:
    """Everything that the runs of one cell share; see `tags` for what they carry."""

    config: Config
    bases: Bases
    data: Data
    request: Request
    attack: Finished
    hyper_parameters: Mapping[str, Mapping[str, Any]]

    @cached_property
    def id(self) -> str:
        """Hash of everything except seed and method: attack models and the source of every figure too.

        Figures that other attack models or other definitions have given are of another cell, never averaged with these.
        """
        config = self.config
        return hash_of(
            [
                self.data.digest, self.data.tested, self.data.split.kind, config.data.split_seed, config.data.pipeline,
                network_identity(config), config.hashed_recipe, self.request.hash, config.request.duplicates,
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

    @cached_property
    def altered(self) -> Altered:
        """The copies that robust audits attack; none where they are not asked for."""
        if not self.config.methods.robust_audits:
            return Altered()
        members, others = self.request.forget, self.request.nonmembers
        say(f"robust audits: altering copies of {counted(len(members) + len(others), 'recording')}")
        return altered_copies(self.config.data, self.data.clips, members, others)

    def robust(self, altered: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The figures of a model's logits of these copies."""
        copies = self.altered
        labels = self.data.clips.labels.numpy()[copies.rows]
        return robust_figures(altered, labels, copies.n_members) if altered else {}

    def fingerprint(self, seed: int, method: str, audits: tuple[str, ...] | None = None) -> str:
        """Hash of what this step reads. A method that only retrains reads no repair settings.

        `audits`: those on request, as configured unless told.
        """
        audits = self.config.methods.audits if audits is None else audits
        known = METHODS.get(method)  # none for the original
        reads = "" if known and known.retrains_only else self.id
        return hash_of(
            [
                "unlearn", seed, method, self.bases.versions[seed].tags["fingerprint"], self.request.hash, reads,
                dict(self.hyper_parameters.get(method, {})), self.data.tested, self.attack.tags["fingerprint"],
                machine(self.config), source_hash(MEASURED_SOURCE),
                *audits,
                *([known.digest] if known and known.digest else []),
            ]
        )  # fmt: skip

    def would_make(self, run: Finished) -> bool:
        """Whether this command would make a run of the cell as it was made, whatever audits it was made with."""
        seed, method = int(run.tags["seed"]), run.tags["method"]
        return any(run.tags["fingerprint"] == self.fingerprint(seed, method, audits) for audits in AUDITS)

    def tags(self, seed: int | None = None, method: str | None = None) -> dict[str, str]:
        """The tags of a run of this cell."""
        shared = {
            **base_tags(self.config),
            **shard_tags(self.config),
            "split": self.data.split.kind,
            "request": self.request.name,
            "request_hash": self.request.hash,
            COPIES: self.request.copies_are,
            SOUGHT: str(self.request.copies_are != NOT_SOUGHT).lower(),
            "cell": self.id,
            "clips_digest": self.data.digest,
            "attack_run_id": self.attack.id,
            "repair": json.dumps(self.config.as_text(REPAIR_FIELDS)),
        }
        if seed is None or method is None:
            return shared
        version = self.bases.versions[seed]
        return shared | {
            **{name: version.tags[name] for name in (ADOPTED, RECIPE_KNOWN) if name in version.tags},
            "seed": str(seed),
            "method": method,
            "fingerprint": self.fingerprint(seed, method),
            "base_run_id": version.run_id,
            "base_version": version.version,
        }

    def params(self, seed: int, method: str, rates: Mapping[str, float]) -> dict[str, str]:
        """The parameters that are in force in a run of this cell.

        Its recordings, base recipe and request; of the repair settings those that its method reads, with the learning
        rates that it has trained with; its method's own hyper-parameters as `method.<name>`.
        """
        about = base_params(self.config) | self.config.as_text(self.config.request.in_force)
        about |= {"seed": str(seed), "method": method}
        if method not in METHODS:
            return about
        values = self.hyper_parameters.get(method, {})
        settings = method_settings(self.config, values)
        known = METHODS[method]
        read = [name for name in REPAIR_FIELDS if name in known.configurable and getattr(settings, name) is not None]
        about |= {name: as_text(getattr(settings, name)) for name in read}
        about |= {name: as_text(float(f"{rate:.12g}")) for name, rate in rates.items()}  # 9.999999999999999e-05
        own = dict(known.hyper_parameters) | {name: values[name] for name in known.hyper_parameters if name in values}
        return about | {f"method.{name}": as_text(value) for name, value in own.items()}
