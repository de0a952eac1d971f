"""Every figure of a small chain, to the last digit, for a comparison of two versions of the code on one machine.

`python experiments/same_figures.py FOLDER --project CHECKOUT` runs train, attack, unlearn with all methods, compare,
report, tune, register and erase with the code of a checkout, in FOLDER, and writes FOLDER/figures.json;
`python experiments/same_figures.py --same A/figures.json B/figures.json` lists what differs and ends with 1 where
anything does. Nothing of the package is imported: what reads the store here is code of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

BASE = {"seeds": "40,41", "n_attack_models": "2"}
LEARNS = {"n_epochs": "24", "batch_size": "8"}
CHAIN: tuple[tuple[str, dict[str, str]], ...] = (
    ("train", LEARNS),
    ("attack", {}),
    ("unlearn", {"methods": "all", "forget_percentage": "20", "deep_audits": "true", "n_epoch_repair": "2"}),
    ("unlearn", {"methods": "naive,cosine,amnesiac", "forget": "class", "forget_class_names": "7"}),
    ("compare", {}),
    ("report", {"forget_percentage": "20"}),
    ("tune", {"methods": "pop,amnesiac", "n_trials": "2", "forget_percentage": "20"}),
    ("unlearn", {"methods": "naive,fine_tune", "forget": "speaker", "forget_speakers": "03", "register": "naive"}),
    ("train", LEARNS),
    ("attack", {}),
    ("unlearn", {"methods": "naive,pop", "forget": "speaker", "forget_speakers": "02", "n_epoch_impair": "2"}),
    ("compare", {}),
    ("erase", {"request": "REQUEST"}),
    ("erase", {"request": "REQUEST", "confirm": "true"}),
    ("compare", {}),
    ("main", {"architecture": "CCT", "pipeline": "mel", "n_epochs": "1", "methods": "naive,eu_k,msg", "seeds": "40"}),
    ("main", {"architecture": "ViT", "pipeline": "spec", "n_epochs": "1", "methods": "naive,pop,ssd", "seeds": "40"}),
)
SECONDS = ("time/", "seconds", "_s")
IDENTITIES = ["cell"]
CELL = re.compile(r"-[0-9a-f]{6}/")  # in the names of folders


def run_chain(folder: Path, project: Path) -> None:
    """Run every command of `CHAIN` in a folder; what they print goes to FOLDER/output.txt."""
    folder.mkdir(parents=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment |= {
        "AUDIO_MU_CACHE": str(folder / "cache"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONPATH": str(project),
        "OMP_NUM_THREADS": "1",
    }
    digits = folder / "digits"
    make = "import sys, pathlib; from audio_mu.data.synthetic import generate; "
    make += "generate(pathlib.Path(sys.argv[1]), n_speakers=5, n_takes=3)"
    subprocess.run([sys.executable, "-c", make, str(digits)], env=environment, check=True)
    digits = next(digits.iterdir()) if not any(digits.rglob("*.wav")) else digits
    with (folder / "output.txt").open("w") as output:
        for entry, own in CHAIN:
            given = {**BASE, **own, "data_dir": str(digits)}
            if given.get("request") == "REQUEST":
                given["request"] = _answered(folder / "mlflow.db")
            words = [word for name, value in given.items() for word in (f"--{name}", value)]
            print(f"$ {entry} {' '.join(words)}", file=output, flush=True)
            done = subprocess.run(
                [sys.executable, "-m", f"entrypoints.{entry}", *words], cwd=folder, env=environment, text=True,
                capture_output=True, check=False,
            )  # fmt: skip
            print(done.stdout, done.stderr, f"exit code {done.returncode}", file=output, flush=True)
            print(f"{entry}: exit code {done.returncode}", flush=True)
    (folder / "figures.json").write_text(json.dumps(figures(folder), indent=1, sort_keys=True))


def _rows(database: Path, question: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(database)) as store:
        return store.execute(question).fetchall()


def _answered(database: Path) -> str:
    question = (
        "select h.value from tags h join tags s on s.run_uuid = h.run_uuid "
        "where h.key = 'request_hash' and s.key = 'stage' and s.value = 'ledger'"
    )
    return str(_rows(database, question)[0][0])[:12]


def figures(folder: Path) -> dict[str, Any]:
    """What the store says, without seconds, ids and hashes of code: by stage, role, seed, method and order."""
    database = folder / "mlflow.db"
    tags: dict[str, dict[str, str]] = {}
    for run, key, value in _rows(database, "select run_uuid, key, value from tags"):
        tags.setdefault(run, {})[key] = value
    metrics: dict[str, dict[str, str]] = {}
    for run, key, value, step in _rows(database, "select run_uuid, key, value, step from metrics"):
        if not any(part in key for part in SECONDS[:2]):
            metrics.setdefault(run, {})[f"{key}@{step}"] = repr(value)
    found: dict[str, Any] = {}
    counted: dict[str, int] = {}
    question = "select run_uuid, status, artifact_uri, lifecycle_stage from runs order by start_time, name"
    for run, status, artifacts, stage in _rows(database, question):
        own = tags[run]
        kind = "/".join(own.get(tag, "") for tag in ("stage", "role", "request", "seed", "method", "trial"))
        counted[kind] = counted.get(kind, 0) + 1
        root = Path(artifacts.removeprefix("file://"))
        found[f"{kind}#{counted[kind]}"] = {
            "status": f"{status} {stage}",
            "metrics": metrics.get(run, {}),
            "artifacts": {
                CELL.sub("/", str(path.relative_to(root))): told
                for path in sorted(root.rglob("*"))
                if (told := _told(path))
            },
        }
    question = (
        "select a.name, a.alias, coalesce(m.value, 'trained'), a.version from registered_model_aliases a left join "
        "model_version_tags m on a.name = m.name and a.version = m.version and m.key = 'method'"
    )
    aliases = {f"{name}@{alias}": f"{method} {version}" for name, alias, method, version in _rows(database, question)}
    output = (folder / "output.txt").read_text()
    codes = [line for line in output.splitlines() if line.startswith(("exit code", "$ "))]
    return {"runs": found, "aliases": aliases, "codes": [line.replace(str(folder), "") for line in codes]}


def _told(path: Path) -> str:
    """What an artifact says, as a hash; empty for what holds seconds, ids or pages."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as content:
            return _hash(b"".join(name.encode() + content[name].tobytes() for name in sorted(content.files)))
    if path.suffix == ".csv":
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        if "metric" in table:
            table = table[~table["metric"].str.startswith(("time/", "gap/time"))]
        kept = [name for name in table.columns if name not in IDENTITIES and not name.endswith("_s")]
        kept = [name for name in kept if not (name == "seconds" or name.startswith("version"))]
        return _hash(table[kept].sort_values(kept).to_csv(index=False).encode())
    if path.suffix == ".pt2":
        import zipfile

        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as packed:
            weights = [name for name in sorted(packed.namelist()) if "/weights/" in name and "config" not in name]
            return _hash(b"".join(packed.read(name) for name in weights))
    if path.name == "erasure.json":
        record = json.loads(path.read_text())
        return json.dumps(sorted(row["what"] + row["action"] for row in record.get("found", record.get("removed", []))))
    return ""


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two of these files differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            line
            for key in sorted(set(one) | set(other))
            for line in differences(one.get(key, "(missing)"), other.get(key, "(missing)"), f"{path} | {key}")
        ]
    return [] if one == other else [f"{path}: {one} -> {other}"]


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--project", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--same", nargs=2, type=Path)
    given = parser.parse_args()
    if given.same:
        found = differences(*(json.loads(path.read_text()) for path in given.same))
        print("\n".join(found) or "the same figures")
        return int(bool(found))
    run_chain(given.folder.resolve(), given.project.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
