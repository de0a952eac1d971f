"""The experiments of results/experiments.yaml: run them through `mlflow run`, and make their tables from the store.

    python -m experiments.tables run [name …]      run all or those named, in their order; finished steps are reused
    python -m experiments.tables                   results/*.csv and the documented tables, from the store
    python -m experiments.tables check             ends with an error where these tables are not what it would write

The documented tables stand between two marks in docs/results.md.
The recordings are read from below AUDIO_MU_TEST_DATA, the store is the one of MLFLOW_TRACKING_URI. Wall seconds of
each command are kept in results/times.csv; the first command of an experiment that ends counts.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
import time

import pandas as pd
import yaml

from audio_mu.config import Config
from audio_mu.names import FLOOR
from audio_mu.report import canvas, figures, tables
from audio_mu.report.facts import Estimate, figures_of, interval_number
from audio_mu.report.rule import Outcome, Verdict, verdicts
from audio_mu.store import queries
from audio_mu.store.artifacts import read_csv
from audio_mu.store.connect import open_store
from audio_mu.store.handle import Store
from audio_mu.workflows.stage import base_tags
from experiments import project
from experiments.project import RESULTS, recordings
from tests.commands import ROOT

TIMES = RESULTS / "times.csv"
PAGE = ROOT / "docs" / "results.md"
DIAGRAM = PAGE.parent / "images" / "ranking.svg"
MANY = 20  # methods from which an experiment counts for the ranking
LINE = 112  # characters of a line of a command
FIRST = ["original", "naive", FLOOR]
TIMED = ("digits-vggish-item-10", "digits-vggish-class-1")  # on idle cores
BEGIN, END = "<!-- results: made by `python -m experiments.tables` -->", "<!-- end of results -->"
MARKED = re.compile(rf"<!-- results: .*?{re.escape(END)}", re.DOTALL)


def experiments() -> dict[str, dict[str, str]]:
    """Name → parameters as text, with `title` among them."""
    content = yaml.safe_load((RESULTS / "experiments.yaml").read_text())
    return {entry["name"]: {key: str(value) for key, value in entry.items()} for entry in content["experiments"]}


def parameters(entry: dict[str, str]) -> dict[str, str]:
    """What goes to the command."""
    return {key: value for key, value in entry.items() if key not in ("name", "title", "entry_point")}


def command(entry: dict[str, str], data: str) -> list[str]:
    """The `mlflow run` command of an experiment."""
    given = {**parameters(entry), "data_dir": f"{data}/{entry['data_dir']}"}
    if "forget_list" in given:
        given["forget_list"] = f"results/{given['forget_list']}"
    return project.command(entry.get("entry_point", "main"), given)


def run(names: list[str]) -> None:
    """Run the named experiments, or all."""
    data = str(recordings())
    chosen = {name: entry for name, entry in experiments().items() if not names or name in names}
    for name, entry in chosen.items():
        print(f"{name}: {entry['title']}", flush=True)
        start = time.time()
        project.run(command(entry, data))
        seconds = round(time.time() - start)
        previous = pd.read_csv(TIMES) if TIMES.exists() else pd.DataFrame(columns=["name", "seconds"])
        if name not in set(previous["name"]):
            pd.concat([previous, pd.DataFrame([{"name": name, "seconds": seconds}])]).to_csv(TIMES, index=False)


def make_tables() -> tuple[str, bytes]:
    """One CSV per experiment, from its newest comparison in the store; return the page's tables and its diagram."""
    store = open_store()
    times = pd.read_csv(TIMES).set_index("name")["seconds"].to_dict() if TIMES.exists() else {}
    blocks, ranked = [], {}
    for name, entry in experiments().items():
        csv = RESULTS / f"{name}.csv"
        long = _comparison(store, entry)
        if long is not None:
            long.to_csv(csv, index=False, float_format="%.6g")
        elif csv.exists():
            long = pd.read_csv(csv)  # made from a store that is not this one
        else:
            continue
        if long["method"].nunique() >= MANY:
            ranked[entry["title"].removesuffix(", all methods")] = long
        order = sorted(dict.fromkeys(long["method"]), key=lambda m: FIRST.index(m) if m in FIRST else len(FIRST))
        table = tables.markdown(tables.wide_table(long, order))
        took = f" ({times[name] / 60:.0f} min on two cores)" if name in times else ""
        shown = _shown(command(entry, "$AUDIO_MU_TEST_DATA"))
        blocks.append(f"### {entry['title']}\n\n`results/{name}.csv`{took}\n\n```sh\n{shown}\n```\n\n{table.strip()}")
    overview, diagram = _overview(ranked)
    return "\n\n".join([BEGIN, overview, *blocks, END]), diagram


def write_tables() -> None:
    """Put the tables into the page."""
    block, diagram = make_tables()
    PAGE.write_text(re.sub(MARKED, lambda _: block, PAGE.read_text()))
    DIAGRAM.write_bytes(diagram)
    print(f"the tables in {PAGE.name} are made anew")


def check_tables() -> None:
    """End with an error where the page's tables or its diagram are not those of this code and the CSV files."""
    block, diagram = make_tables()
    if block not in PAGE.read_text() or DIAGRAM.read_bytes() != diagram:
        sys.exit(f"the tables in {PAGE.name} are of other figures or of an earlier rule: python -m experiments.tables")


def _shown(words: list[str]) -> str:
    """A command as it is documented: in lines of a readable length, an option beside its value."""
    text = " ".join(words).replace("$AUDIO_MU_TEST_DATA", '"$AUDIO_MU_TEST_DATA"', 1)
    whole = re.sub(r"(?<= -P) ", "\0", text)
    lines = textwrap.wrap(whole, LINE, break_long_words=False, break_on_hyphens=False)
    return " \\\n  ".join(lines).replace("\0", " ")


def _overview(found: dict[str, pd.DataFrame]) -> tuple[str, bytes]:
    """All methods side by side over the experiments that have them all, the best average rank by ToW first; and the
    diagram of the ranking."""
    tow = {
        title: {m: f["gap/tow"] for m, f in _figures(long).items() if "gap/tow" in f} for title, long in found.items()
    }
    judged = {title: verdicts(long, list(tow[title])) for title, long in found.items()}
    means = pd.DataFrame({title: {m: estimate.mean for m, estimate in of.items()} for title, of in tow.items()})
    ranks = means.drop(index="original").rank(ascending=False).mean(axis=1).sort_values()
    timed = [experiments()[name]["title"].removesuffix(", all methods") for name in TIMED]
    costs = pd.DataFrame({title: _seconds(found[title]) for title in timed if title in found}).mean(axis=1)
    rows = [
        {
            "method": method,
            "rank": f"{ranks[method]:.1f}" if method in ranks else "–",
            **{
                title: f"{interval_number(tow[title][method])} {_short(judged[title][method])}".strip()
                for title in found
            },
            "time": f"{costs[method]:.2f}" if method in costs else "–",
        }
        for method in [*ranks.index, "original"]
    ]
    shared = ("dataset_name", "pipeline", "architecture")
    pooled = [long.assign(**dict.fromkeys(shared, title)) for title, long in found.items()]
    test = tables.ranking(pd.concat(pooled), list(ranks.index))["gap/tow"]
    drawn = figures.ranking_figure(test, "ToW")
    assert drawn is not None, "nothing to rank: the tables of all methods are missing"
    text = (
        "### All methods, ranked\n\n"
        "The methods stand in the order of their average rank in ToW (1 = naive's accuracies on the forget, remain and "
        "test\nset). A cell gives the mean, the 95 % t interval over the seeds, and the verdict of the rule. A "
        "question mark marks a\nverdict that is not settled: an interval reaches across one of the rule's limits. Time "
        "is in multiples of naive's\ntime, from the tables of idle cores. Friedman's p over the "
        f"{test.n_cells} tables is {test.p_value:.2g}. By Nemenyi, ranks must be {test.critical_difference:.1f} apart\n"
        "to differ at 5 %, and the tables share base models: only the ends of the list are apart.\n\n"
        f"![Critical-difference diagram: thick lines join what the test cannot tell apart]"
        f"({DIAGRAM.relative_to(PAGE.parent).as_posix()})\n\n"
        f"{tables.markdown(pd.DataFrame(rows)).strip()}"
    )
    return text, canvas.as_file(drawn, "svg")


def _short(verdict: Verdict) -> str:
    """A verdict in the report's words, marked where it is not settled; none of the original, which is not judged."""
    if verdict.outcome is Outcome.UNTOUCHED:
        return ""
    unsettled = not verdict.settled and verdict.outcome is not Outcome.NOT_JUDGED
    return f"{verdict.outcome.value}?" if unsettled else verdict.outcome.value


def _seconds(long: pd.DataFrame) -> dict[str, float]:
    """Method → its mean seconds in multiples of naive's."""
    means = long[long["metric"] == "time/total_s"].set_index("method")["mean"]
    return (means / means["naive"]).to_dict()


def _figures(long: pd.DataFrame) -> dict[str, dict[str, Estimate]]:
    return {method: figures_of(long, method) for method in long["method"].unique() if method not in ("naive", FLOOR)}


def _comparison(store: Store, entry: dict[str, str]) -> pd.DataFrame | None:
    values = parameters(entry)
    text = {key: value for key, value in values.items() if key not in ("data_dir", "forget_list")}
    kind = values.get("forget", "item")
    config = Config.from_text({**text, "forget": "item" if kind == "list" else kind})
    request = _request(kind, config)
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
        "item": f"{config.request.forget_percentage:g}",
        "class": "+".join(config.request.forget_class_names) or str(config.request.forget_classes_num),
        "speaker": "+".join(config.request.forget_speakers) or str(config.request.forget_speakers_num),
    }
    return f"{kind}-{re.escape(names[kind]) if kind in names else '.*'}"


def main() -> None:
    """Run experiments or make the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", choices=["run", "tables", "check"], default="tables")
    parser.add_argument("names", nargs="*", help="experiments to run (default: all)")
    given = parser.parse_args()
    if unknown := set(given.names) - set(experiments()):
        parser.error(f"no experiment {', '.join(sorted(unknown))}; choose from {', '.join(experiments())}")
    if given.task == "run":
        run(given.names)
    elif given.task == "check":
        check_tables()
    else:
        write_tables()


if __name__ == "__main__":
    main()
