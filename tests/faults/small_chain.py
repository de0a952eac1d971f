"""The whole chain on little data, and the figures that must be equal however the chain came to its end."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audio_mu.data.synthetic import generate
from audio_mu.system.hashing import file_sha256
from tests.commands import entry_point, mlflow_run, own_environment

SETTINGS = {
    "seeds": "40,41", "n_epochs": "1", "n_epoch_repair": "1", "batch_size": "16", "n_attack_models": "1",
    "methods": "naive,gradient_ascent,fine_tune",
}  # fmt: skip
"""Small, and still every step: two base models, the attack, four methods of each seed, audits across seeds, report."""

ANSWER = {
    **SETTINGS, "dataset": "folder", "dataset_name": "tones", "speaker_pattern": r"(p\d+)_", "clip_seconds": "0.5",
    "n_epochs": "6", "batch_size": "8", "forget": "speaker", "forget_speakers": "p1", "register": "naive",
}  # fmt: skip
"""On tones, which a linear network learns at once: the request is answered, the unlearned models go into service."""

SMALLEST = {**SETTINGS, "seeds": "40", "methods": "naive"}
ENTRY, PROJECT = "python -m entrypoints.main", "mlflow run"
TAGS = ("stage", "role", "seed", "method")


@dataclass(frozen=True)
class Place:
    """A folder with a tracking store, a cache and temporary files of its own; `digits` are the recordings."""

    folder: Path
    digits: Path
    settings: Mapping[str, str] = field(default_factory=lambda: SETTINGS)

    def make(self) -> Place:
        """Create the folders."""
        for name in ("cache", "tmp"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        return self

    @property
    def database(self) -> Path:
        """The store's file."""
        return self.folder / "mlflow.db"

    def environment(self) -> dict[str, str]:
        """The environment of a command that works here."""
        return own_environment(
            self.folder / "cache", TMPDIR=str(self.folder / "tmp"), MLFLOW_TRACKING_URI=f"sqlite:///{self.database}"
        )

    def start(self, via: str, output: Path, stage: str = "main") -> subprocess.Popen[bytes]:
        """Start the chain, or the erasure of its request, in a process group of its own.

        What it prints is appended to a file.
        """
        given = {**self.settings, "data_dir": str(self.digits)}
        if stage == "erase":
            given = {"request": self.request(), "confirm": "true"}
        words = entry_point(stage, given) if via == ENTRY else mlflow_run(stage, given)
        with output.open("ab") as stream:
            return subprocess.Popen(
                words, cwd=self.folder, env=self.environment(), stdout=stream, stderr=stream, start_new_session=True
            )

    def request(self) -> str:
        """The hash of the request that the chain has answered."""
        ((hash_,),) = self.query("select distinct value from tags where key = 'request_hash'")
        return str(hash_)

    def finish(self, via: str, stage: str = "main") -> None:
        """Run the chain or the erasure to its end. Raises `RuntimeError` with its last lines where it fails."""
        output = self.folder / "output.txt"
        if self.start(via, output, stage).wait() != 0:
            raise RuntimeError(f"{via} failed:\n" + "\n".join(output.read_text().splitlines()[-20:]))

    def query(self, question: str) -> list[tuple[Any, ...]]:
        """The rows that answer a question in SQL; none while there is no such table yet."""
        try:
            with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)) as database:
                return database.execute(question).fetchall()
        except sqlite3.Error:
            return []

    def create_store(self) -> None:
        """Have MLflow create its tables, which it fails to do where it was killed before, or several do it at once."""
        words = ["mlflow", "db", "upgrade", f"sqlite:///{self.database}"]
        subprocess.run(words, cwd=self.folder, env=self.environment(), check=True, capture_output=True)


def small_digits(folder: Path) -> Path:
    """60 recordings of three voices."""
    return generate(folder / "digits", n_speakers=3, n_takes=2)


def outcome(place: Place) -> dict[str, Any]:
    """Everything in the store that must not depend on kills or neighbours, as JSON.

    Per kind of run (stage, role, seed, method) its metrics but times, its fingerprint and its losses; the
    fingerprint behind every alias; the number of entries in the ledger. Where finished runs of one kind differ, all
    of what they say is there.
    """
    tags: dict[str, dict[str, str]] = {}
    for run_id, key, value in place.query("select run_uuid, key, value from tags"):
        tags.setdefault(run_id, {})[key] = value
    metrics: dict[str, dict[str, float]] = {}
    for run_id, key, value in place.query("select run_uuid, key, value from latest_metrics"):
        if "time/" not in key:
            metrics.setdefault(run_id, {})[key] = value
    found: dict[str, set[str]] = {}
    for run_id, artifacts in place.query("select run_uuid, artifact_uri from runs where status = 'FINISHED'"):
        own = tags[run_id]
        losses = {p.name: file_sha256(p) for p in sorted(Path(artifacts).rglob("*.csv")) if "losses" in str(p)}
        said = {"metrics": metrics.get(run_id, {}), "losses": losses, "cell": own.get("cell", "")}
        if own["role"] not in ("parent", "table", "entry"):
            said["fingerprint"] = own["fingerprint"]
        kind = "/".join(own.get(tag, "") for tag in TAGS)
        found.setdefault(kind, set()).add(json.dumps(said, sort_keys=True))
    aliases = place.query(
        "select a.alias, t.value from registered_model_aliases a join model_version_tags t "
        "on a.name = t.name and a.version = t.version where t.key = 'fingerprint'"
    )
    ((entries,),) = place.query(
        "select count(*) from runs r join tags t on t.run_uuid = r.run_uuid and t.key = 'role' and t.value = 'entry' "
        "where r.status = 'FINISHED'"
    )
    runs = {kind: sorted(values) for kind, values in sorted(found.items())}
    return {"runs": runs, "aliases": dict(sorted(aliases)), "entries": entries}


def repeated(place: Place) -> list[str]:
    """The steps (base models and methods of a seed) that were finished more than once."""
    kinds = place.query(
        "select s.value, d.value, coalesce(m.value, '') from runs r "
        "join tags s on s.run_uuid = r.run_uuid and s.key = 'stage' "
        "join tags d on d.run_uuid = r.run_uuid and d.key = 'seed' "
        "left join tags m on m.run_uuid = r.run_uuid and m.key = 'method' where r.status = 'FINISHED'"
    )
    return sorted("/".join(kind) for kind, n in Counter(kinds).items() if n > 1)


def running(place: Place) -> set[str]:
    """The ids of the runs that are RUNNING."""
    return {run_id for (run_id,) in place.query("select run_uuid from runs where status = 'RUNNING'")}


def strays(place: Place) -> list[str]:
    """Temporary files in the cache, in the artifacts and in the folder for temporary files."""
    left = [
        path for part in ("cache", "mlruns") for path in (place.folder / part).rglob(".*") if path.suffix != ".lock"
    ]
    # Every `mlflow run` leaves an empty folder, and MLflow a lock, of its own.
    left += [path for path in (place.folder / "tmp").rglob("*") if path.is_file() and "db_init_lock" not in path.name]
    return sorted(path.relative_to(place.folder).as_posix() for path in left)
