"""Run the experiments of results/experiments.yaml through `mlflow run`, and make the README's tables from the store.

    python -m benchmarks.experiments run [name …]      run those not finished yet, in their order; resumable
    python -m benchmarks.experiments tables            results/*.csv and the README's results from the store

The recordings are read from below AUDIO_MU_TEST_DATA, the store is the one of MLFLOW_TRACKING_URI. Wall seconds of
each command are kept in results/times.csv (the first complete run counts; a resumed one is marked).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import yaml

from audio_mu.config import Config
from audio_mu.errors import UserError
from audio_mu.report import tables
from audio_mu.store import queries
from audio_mu.store.runs import Store, read_csv
from audio_mu.workflows.audits import FLOOR
from audio_mu.workflows.prepare import base_tags

ROOT = Path(__file__).resolve().parents[1]
TIMES = ROOT / "results" / "times.csv"
FIRST = ["original", "naive", FLOOR]
MARKS = ("<!-- results: made by `python -m benchmarks.experiments tables` -->", "<!-- end of results -->")


def experiments() -> dict[str, dict[str, str]]:
    """Name → parameters as text, with `title` among them."""
    content = yaml.safe_load((ROOT / "results" / "experiments.yaml").read_text())
    return {entry["name"]: {key: str(value) for key, value in entry.items()} for entry in content["experiments"]}


def parameters(entry: dict[str, str]) -> dict[str, str]:
    """What goes to the command."""
    return {key: value for key, value in entry.items() if key not in ("name", "title", "entry_point")}


def command(entry: dict[str, str], data: str) -> list[str]:
    """The `mlflow run` command of an experiment."""
    given = {**parameters(entry), "data_dir": f"{data}/{entry['data_dir']}"}
    if "forget_list" in given:
        given["forget_list"] = f"results/{given['forget_list']}"
    options = [word for key, value in given.items() for word in ("-P", f"{key}={value}")]
    return ["mlflow", "run", ".", "-e", entry.get("entry_point", "main"), "--env-manager", "local", *options]


def run(names: list[str]) -> None:
    """Run the named experiments, or all."""
    data = os.environ.get("AUDIO_MU_TEST_DATA")
    if not data:
        raise UserError("AUDIO_MU_TEST_DATA is not set: give the folder that holds the recordings' folders")
    chosen = {name: entry for name, entry in experiments().items() if not names or name in names}
    for name, entry in chosen.items():
        print(f"== {name}: {entry['title']}", flush=True)
        start = time.time()
        subprocess.run(command(entry, data), cwd=ROOT, check=True)
        seconds = round(time.time() - start)
        previous = pd.read_csv(TIMES) if TIMES.exists() else pd.DataFrame(columns=["name", "seconds"])
        if name not in set(previous["name"]):
            pd.concat([previous, pd.DataFrame([{"name": name, "seconds": seconds}])]).to_csv(TIMES, index=False)


def make_tables() -> None:
    """One CSV per experiment and the README's block, from each experiment's newest comparison in the store."""
    store = Store.connect()
    times = pd.read_csv(TIMES).set_index("name")["seconds"].to_dict() if TIMES.exists() else {}
    blocks = []
    for name, entry in experiments().items():
        csv = ROOT / "results" / f"{name}.csv"
        long = _comparison(store, entry)
        if long is not None:
            long.to_csv(csv, index=False, float_format="%.6g")
        elif csv.exists():
            long = pd.read_csv(csv)  # made from a store that is not this one
        else:
            continue
        order = sorted(dict.fromkeys(long["method"]), key=lambda m: FIRST.index(m) if m in FIRST else len(FIRST))
        table = tables.markdown(tables.wide_table(long, order))
        shown = " ".join(command(entry, "$AUDIO_MU_TEST_DATA")).replace(
            "$AUDIO_MU_TEST_DATA", '"$AUDIO_MU_TEST_DATA"', 1
        )
        took = f" ({times[name] / 60:.0f} min on two cores)" if name in times else ""
        blocks.append(f"**{entry['title']}**{took}, `results/{name}.csv`\n\n```sh\n{shown}\n```\n\n{table}")
    readme = ROOT / "README.md"
    begin, end = MARKS
    text = re.sub(
        re.escape(begin) + ".*?" + re.escape(end),
        lambda _: "\n\n".join([begin, *blocks, end]),
        readme.read_text(),
        flags=re.DOTALL,
    )
    readme.write_text(text)
    print(f"{len(blocks)} tables")


def _comparison(store: Store, entry: dict[str, str]) -> pd.DataFrame | None:
    values = parameters(entry)
    text = {key: value for key, value in values.items() if key not in ("data_dir", "forget_list")}
    config = Config.from_text({**text, "forget": "item"}).resolved()
    request = _request(values.get("forget", "item"), config)
    wanted = {**base_tags(config), "stage": "compare"}
    runs = queries.find(store, wanted)
    found = next((run for run in runs if re.fullmatch(request, run.tags["request"])), None)
    if found is None:
        return None
    long = read_csv(store, found.id, "comparison.csv", na_values={"std": "", "ci_low": "", "ci_high": ""})
    return long[long["cell"] == found.tags["cell"]]


def _request(kind: str, config: Config) -> str:
    """A pattern of the request's name; a list is named by its hash."""
    names = {
        "item": f"{config.forget_percentage:g}",
        "class": "+".join(config.forget_class_names) or str(config.forget_classes_num),
        "speaker": "+".join(config.forget_speakers) or str(config.forget_speakers_num),
    }
    return f"{kind}-{re.escape(names[kind]) if kind in names else '.*'}"


if __name__ == "__main__":
    verb, *rest = sys.argv[1:] or ["help"]
    if verb == "run":
        run(rest)
    elif verb == "tables":
        make_tables()
    else:
        print(__doc__)
