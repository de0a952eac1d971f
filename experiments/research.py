"""Try an idea for a method: how near to retraining does it come, in what share of retraining's time?

    python -m experiments.research words fine_tune pop salun               # methods of the package
    python -m experiments.research words,digits FILE.py:candidate          # a function of a Task, from any file
    python -m experiments.research words experiments/candidates.py:anew epochs=6 --seeds 40,41
    python -m experiments.research words --layers          # which layers hold what the original knows of the forget set

Cells are those of results/experiments.yaml: 10 % of the items of the words or the digits. The base model and naive of a
cell and a seed are trained once and kept in --folder. Everything is computed by the package's own functions, on one
thread. A line per seed and one of several seeds' means are printed; with --csv they are added to a table. Gaps to naive
of the same seed: `tow` is the product over forget, remain and test of 1 - |accuracy - naive's|, `auc_gap` the
population attack's AUC less naive's, `js` the mean divergence from naive on the forget set, `time` the share of naive's
CPU time, `loss` the last epoch's where the method records it. The recordings are read from below AUDIO_MU_TEST_DATA.
The test set is never shown to a method.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from audio_mu.audit.distances import distances, tug_of_war
from audio_mu.audit.performance import accuracy, cross_entropy
from audio_mu.audit.population import population_attack
from audio_mu.base_models.fingerprints import optimizer_settings, problem
from audio_mu.compute.jobs import Result, TrainJob, UnlearnJob, train_job, unlearn_job
from audio_mu.compute.problem import Problem
from audio_mu.config import Config
from audio_mu.names import NAIVE, ORIGINAL
from audio_mu.own_code import is_reference
from audio_mu.requests.request import Request
from audio_mu.training import predict
from audio_mu.unlearning import METHODS, own_method
from audio_mu.workflows.data import load_data, resolve
from audio_mu.workflows.method_settings import method_settings
from experiments.project import recordings
from experiments.tables import experiments, parameters

CELLS = {"words": "words-vggish-item-10", "digits": "digits-vggish-item-10"}


@dataclass(frozen=True)
class Cell:
    """A data set with its recipe and a request."""

    name: str
    config: Config
    request: Request
    problem: Problem

    @property
    def labels(self) -> np.ndarray:
        """Of all clips [n]."""
        return self.problem.labels


def load_cell(name: str) -> Cell:
    """The cell of `CELLS`, by the parameters of its documented experiment."""
    entry = experiments()[CELLS[name]]
    given = {**parameters(entry), "methods": NAIVE, "data_dir": str(recordings() / entry["data_dir"])}
    config = Config.from_text(given)
    data = load_data(config)
    return Cell(name, config, resolve(config, data), replace(problem(config, data.clips), threads=1))


def base_model(cell: Cell, seed: int) -> Result:
    """The original, trained on the forget and the remain set."""
    training, request = cell.config.training, cell.request
    job = TrainJob(
        problem=cell.problem,
        seed=seed,
        train=np.union1d(request.forget, request.remain),
        sets=request.sets(),
        optimizer=optimizer_settings(cell.config),
        batch_size=training.batch_size,
        n_epochs=training.n_epochs,
        best_on=None,
    )
    return train_job(job)


def unlearned(cell: Cell, seed: int, base: Result, method: str, values: Mapping[str, Any]) -> Result:
    """The result of a registered method with these hyper-parameters."""
    job = UnlearnJob(
        problem=cell.problem,
        seed=seed,
        method=method,
        request=cell.request.kind,
        base_state=base.state,
        sets=cell.request.sets(),
        settings=method_settings(cell.config, {}),
        hyper_parameters=values,
        best_on=None,
        reference=METHODS[method].reference,
    )
    return unlearn_job(job)


def base_and_naive(cell: Cell, seed: int, folder: Path) -> tuple[Result, Result]:
    """The original and naive of a seed, trained the first time and kept in the folder."""
    file = folder / f"{cell.name}-{seed}.pickle"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        base = base_model(cell, seed)
        file.write_bytes(pickle.dumps((base, unlearned(cell, seed, base, NAIVE, {}))))
    base, naive = pickle.loads(file.read_bytes())
    return base, naive


def figures(cell: Cell, result: Result, naive: Result) -> dict[str, float]:
    """How far a result is from naive."""
    request, labels = cell.request, cell.labels
    accuracies, attacked = {}, {}
    for name, found in (("own", result), ("naive", naive)):
        sets = {part: (found.logits[part], labels[rows]) for part, rows in request.sets().items()}
        accuracies[name] = {part: accuracy(*pair) for part, pair in sets.items()}
        fair = np.isin(request.sets()[request.nonmember_set], request.nonmembers)
        unseen, truth = sets[request.nonmember_set]
        losses = cross_entropy(*sets["forget"]), cross_entropy(unseen[fair], truth[fair])
        attacked[name] = population_attack(*losses).auc
    if attacked["own"] is None or attacked["naive"] is None:
        raise ValueError(f"{cell.name}: no non-members")
    return {
        **accuracies["own"],
        "auc": attacked["own"],
        "auc_gap": attacked["own"] - attacked["naive"],
        "js": distances(result.logits["forget"], naive.logits["forget"])["js"],
        "tow": tug_of_war(accuracies["own"], accuracies["naive"]) or 0.0,
        "time": result.cpu_seconds / naive.cpu_seconds,
    }


def tried(cell: Cell, method: str, values: Mapping[str, Any], seeds: list[int], folder: Path) -> pd.DataFrame:
    """One row per seed, and the means of several: of `auc_gap` that of its magnitude."""
    rows = []
    for seed in seeds:
        base, naive = base_and_naive(cell, seed, folder)
        known = {ORIGINAL: replace(base, cpu_seconds=0.0), NAIVE: naive}
        result = known[method] if method in known else unlearned(cell, seed, base, method, values)
        text = ",".join(f"{name}={value}" for name, value in values.items())
        about = {"cell": cell.name, "method": method, "values": text, "seed": str(seed)}
        rows.append({**about, **figures(cell, result, naive), "loss": result.figures.get("loss", np.nan)})
    table = pd.DataFrame(rows)
    mean = table.drop(columns=list(about)).assign(auc_gap=table["auc_gap"].abs()).mean()
    means = [{**rows[0], "seed": "mean", **mean}] if len(seeds) > 1 else []
    return pd.concat([table, pd.DataFrame(means)], ignore_index=True)


def swapped(cell: Cell, seed: int, folder: Path) -> pd.DataFrame:
    """Accuracies of the original with one layer's weights taken from naive, a row per layer; they start alike."""
    base, naive = base_and_naive(cell, seed, folder)
    features, _ = cell.problem.tensors()
    rows = []
    for layer in dict.fromkeys(name.rpartition(".")[0] for name in base.state):
        own = {name: naive.state[name] for name in base.state if name.rpartition(".")[0] == layer}
        network = cell.problem.filled(seed, {**base.state, **own})
        found = {
            part: accuracy(predict(network, features, indices), cell.labels[indices])
            for part, indices in cell.request.sets().items()
        }
        rows.append({"cell": cell.name, "layer": layer, "seed": seed, **found})
    return pd.DataFrame(rows)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", help=f"of {', '.join(CELLS)}, separated by commas")
    parser.add_argument("--layers", action="store_true", help="only swap naive's layers into the original, one by one")
    parser.add_argument("methods", nargs="*", help="methods, file.py:name, and name=value for those before")
    parser.add_argument("--seeds", default="40,41")
    parser.add_argument("--folder", type=Path, default=Path("research"))
    parser.add_argument("--csv", type=Path, help="a table to which the rows are added")
    given = parser.parse_args()
    seeds = [int(seed) for seed in given.seeds.split(",")]
    trials: list[tuple[str, dict[str, Any]]] = []
    for word in given.methods:
        name, equals, value = word.partition("=")
        if equals:
            trials[-1][1][name] = yaml.safe_load(value)
        else:
            trials.append((own_method(word) if is_reference(word) else word, {}))
    for cell in map(load_cell, given.cells.split(",")):
        for seed in seeds if given.layers else ():
            print(swapped(cell, seed, given.folder).round(3).to_string(index=False), flush=True)
        for method, values in trials:
            table = tried(cell, method, values, seeds, given.folder)
            print(table.round(3).to_string(index=False, header=method == trials[0][0]), flush=True)
            if given.csv:
                table.to_csv(given.csv, mode="a", header=not given.csv.exists(), index=False, float_format="%.4f")


if __name__ == "__main__":
    main()
