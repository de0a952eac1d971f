"""The comparison as a long table, and as one that people read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from audio_mu.audit.statistics import FriedmanResult, friedman, paired_differences, t_interval
from audio_mu.names import FLOOR, NAIVE, ORIGINAL

COLUMNS = ["cell", "request", "method", "metric", "mean", "std", "n", "seeds", "values", "ci_low", "ci_high"]
SHOWN = {
    "forget/accuracy": "forget acc",
    "remain/accuracy": "remain acc",
    "test/accuracy": "test acc",
    "held_out/accuracy": "held-out acc",
    "forget/recording_accuracy": "forget rec. acc",
    "remain/recording_accuracy": "remain rec. acc",
    "test/recording_accuracy": "test rec. acc",
    "mia/score": "MIA score",
    "mia/auc": "MIA AUC",
    "distance/activation": "act. dist.",
    "distance/js": "JS",
    "gap/tow": "ToW",
    "time/total_s": "seconds",
    "time/speedup": "speed-up",
}
"""Metrics of the table for people, in its order, with their headings."""

SHORT = {
    "forget/accuracy": "forget",
    "remain/accuracy": "remain",
    "test/accuracy": "test",
    "mia/auc": "MIA AUC",
    "gap/tow": "ToW",
    "time/total_s": "seconds",
}
"""Metrics of the console's table, in its order, with their headings."""

AUDITED = {
    "mia/auc": "MIA AUC",
    "gap/mia_auc": "AUC − naive's",
    "mia/balanced_accuracy": "MIA bal. acc.",
    "mia/tpr_at_fpr_1pct": "TPR at 1 % FPR",
    "mia/tpr_at_fpr_0.1pct": "TPR at 0.1 % FPR",
    "audit/rmia_auc": "RMIA AUC",
    "audit/ulira_auc": "U-LiRA AUC",
    "audit/lira_auc": "LiRA AUC",
    "audit/lira_balanced_accuracy": "LiRA bal. acc.",
    "audit/lira_tpr_at_fpr_1pct": "LiRA TPR at 1 %",
    "audit/lira_tpr_at_fpr_0.1pct": "LiRA TPR at 0.1 %",
    "audit/rmia_online_auc": "online RMIA AUC",
    "audit/rmia_online_tpr_at_fpr_1pct": "online RMIA TPR at 1 %",
    "audit/person_p": "person p",
    "audit/person_p_smallest": "smallest possible p",
    "audit/epsilon_bound": "bound",
    "audit/epsilon_null_relabelled": "its null",
    "audit/epsilon_separated_share": "separated",
    "audit/epsilon_separated_by_chance": "by chance",
    "deep/relearn_epochs": "relearn epochs",
    "deep/relearn_reached": "relearned",
    "deep/probe_accuracy": "probe acc",
    "robust/mp3_auc": "AUC of MP3",
    "robust/noise_auc": "AUC of noisy",
    "robust/trimmed_auc": "AUC of trimmed",
    "robust/mean_auc": "AUC of the mean",
}
"""Metrics of the audit table, in its order, with their headings."""

AUDIT_EXPLANATION = (
    "Mean [95 % interval] over the seeds. MIA: population attack of the forget recordings against the "
    "non-members by loss alone; AUC 0.5 = they look like unseen ones, far below 0.5 = over-unlearned. RMIA: the same "
    "with the other seeds' naive models as references. U-LiRA: whether this method's models can be told from naive's "
    "on the forget recordings, each seed attacked with the others; 0.5 = no. bound: largest distinguishability seen "
    "per recording (no guarantee, no epsilon of differential privacy), beside its mean under exchanged labels; "
    "separated: share of recordings on which all of its models and all naive models lie apart. AUC of MP3, noisy, "
    "trimmed: MIA on copies altered so; of the mean: by the mean loss over a recording and its copies."
)

CHAIN_EXPLANATION = (
    "Accuracy, mean over the seeds, of the versions that answered. Each request starts from the version that the one "
    "before it left. on …: recordings of an earlier request, still forgotten where the figure is that of naive, the "
    "model retrained without this request and all before it (in brackets where another answered). test before: "
    "accuracy that the request started from. Every method of every request is in chain.csv."
)

CLASSES = {
    f"{name}/{figure}": f"{name} {heading}"
    for name in ("forget", "remain", "test")
    for figure, heading in (("accuracy", "acc"), ("macro_f1", "macro F1"), ("worst_class_accuracy", "worst class"))
}
"""Metrics of the table of classes, in its order, with their headings."""

CLASSES_EXPLANATION = (
    "Macro F1: mean of the classes' F1, each class counted once, over the classes that the set has recordings of. "
    "worst class: accuracy on the class that is answered rightly least often, of any size; the tags "
    "worst_class_<set> of a run name it, its audit/per_class.csv has all of them, its audit/confusion.csv what they "
    "are called instead."
)

SHARES = {
    "learned", "relearn_reached", "accuracy", "ece", "auc", "score", "balanced_accuracy", "macro_f1", "person_p",
}  # fmt: skip
POSSIBLE = {"distance/js": (0.0, float(np.log(2))), "distance/activation": (0.0, 2**0.5)}
NEVER_NEGATIVE = ("time/", "deep/")

PAIRED_PREFIXES = (
    "forget/", "remain/", "test/", "held_out/", "mia/", "audit/rmia", "audit/lira", "audit/person_stat", "deep/",
    "robust/",
)  # fmt: skip
PAIRED_SHOWN = ("forget/accuracy", "test/accuracy", "forget/loss", "mia/score", "mia/auc", "audit/rmia_auc")
PAIRED_COLUMNS = ["cell", "request", "method", "metric", "difference", "ci_low", "ci_high", "n", "seeds",
                  "p_sign_flip", "p_wilcoxon", "p_floor"]  # fmt: skip
NOT_RANKED = (ORIGINAL, NAIVE, FLOOR)
RANKED = {"gap/tow": True, "distance/js": False, "|gap/mia_auc|": False}
"""What methods are ranked by, and whether higher is better."""

EXPLANATION = (
    "Mean [95 % interval] over the seeds. forget/remain/test acc: accuracy on the recordings to forget, on the "
    "rest of the training set, on the test set; rec. acc: of the mean logits of recordings that are cut into clips. "
    "MIA score: share of forget recordings that the attack models call "
    "non-member; MIA AUC: 0.5 = forget recordings look like unseen ones. act. dist., JS: distance to naive on the "
    "forget set, whose yardstick is retrain_floor: naive models of different seeds to each other. ToW: 1 = same "
    "accuracies as naive. naive (retrained without the recordings) is the target in every column, not the extreme."
)


SHORT_EXPLANATION = "Means over the seeds; the target in every column is naive's; ?: not settled."


def long_table(values: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds within each cell.

    `values` has the columns cell, request, method, metric, seed, value, one row each. Returns the columns of the
    contract; `std` has ddof 1 and is empty, like the 95 % t interval, for a single seed. `values` are those of `seeds`,
    in their order. The interval is cut to what the metric can be (`possible`), which takes nothing from its coverage.
    """
    rows = []
    for (cell, request, method, metric), group in values.groupby(["cell", "request", "method", "metric"], sort=False):
        interval = t_interval(group["value"].to_numpy())
        by_seed = sorted(zip(group["seed"], group["value"]))
        seeds, listed = (" ".join(map(str, column)) for column in zip(*by_seed))
        low, high = interval.low, interval.high
        if low is not None and high is not None:
            low, high = np.clip([low, high], *possible(metric)).tolist()
        rows.append([cell, request, method, metric, interval.mean, interval.std, interval.n, seeds, listed, low, high])
    return pd.DataFrame(rows, columns=COLUMNS)


def possible(metric: str) -> tuple[float, float]:
    """The smallest and the largest value that a metric can have; infinite where there is no limit or none is known."""
    of, _, figure = metric.partition("/")
    if metric in POSSIBLE:
        return POSSIBLE[metric]
    if of != "gap" and (figure in SHARES or figure.endswith(("_auc", "_accuracy", "_nonmember")) or "tpr_at" in figure):
        return 0.0, 1.0
    if metric == "gap/tow":
        return 0.0, 1.0
    return (0.0 if figure == "loss" or metric.startswith(NEVER_NEGATIVE) else -np.inf), np.inf


def whole_rows(values: pd.DataFrame) -> pd.DataFrame:
    """Rows of the long table for numbers that take all seeds at once: they have no deviation and no interval.

    `values` has the columns cell, request, method, metric, value, seeds (separated by spaces).
    """
    nan = float("nan")
    rows = values.rename(columns={"value": "mean"}).assign(std=nan, ci_low=nan, ci_high=nan, values="")
    return rows.assign(n=rows["seeds"].str.split().str.len())[COLUMNS].astype({"mean": float, "n": int})


def paired_table(values: pd.DataFrame) -> pd.DataFrame:
    """Every method's difference to naive, paired by seed, with its 95 % t interval and exact p values.

    `values` as in `long_table`. Cells without naive give no rows. The columns are `PAIRED_COLUMNS`.
    """
    wanted = values[values["metric"].str.startswith(PAIRED_PREFIXES)]
    by_key = {
        key: dict(zip(group["seed"], group["value"]))
        for key, group in wanted.groupby(["cell", "request", "method", "metric"], sort=False)
    }
    pairs = {}
    for (cell, request, method, metric), ours in by_key.items():
        naive = by_key.get((cell, request, NAIVE, metric), {})
        if method != NAIVE and set(ours) & set(naive):
            pairs[cell, request, method, metric] = ours, naive
    rows = [
        [*key, pair.interval.mean, pair.interval.low, pair.interval.high, pair.interval.n,
         " ".join(map(str, pair.seeds)), pair.p_sign_flip, pair.p_wilcoxon, pair.p_floor]
        for key, pair in zip(pairs, paired_differences(list(pairs.values())), strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=PAIRED_COLUMNS)


def paired_shown(paired: pd.DataFrame, order: Iterable[str]) -> pd.DataFrame:
    """One row per method: difference to naive [95 % interval] and sign-flip p of the metrics that people ask for."""
    shown = paired[paired["metric"].isin(PAIRED_SHOWN)]
    text = shown.assign(text=[_difference(row) for row in shown.itertuples()])
    wide = text.pivot(index="method", columns="metric", values="text")
    columns = [metric for metric in PAIRED_SHOWN if metric in wide.columns]
    wide = wide.reindex(index=[method for method in order if method in wide.index], columns=columns).fillna("–")
    return wide.rename_axis(index="method", columns=None).reset_index()


def paired_markdown(paired: pd.DataFrame, order: Iterable[str]) -> str:
    """The differences to naive of one cell, with the p values that its number of seeds allows; empty without any."""
    if not len(paired):
        return ""
    floor = float(paired["p_floor"].min())
    verdict = (
        ": no difference of this cell can be significant at 5 % without assuming normality" if floor > 0.05 else ""
    )
    return (
        f"### Differences to naive, paired by seed\n\n{markdown(paired_shown(paired, order))}\nDifference [95 % t "
        f"interval], p of the exact sign-flip test. With {int(paired['n'].max())} pairs no exact p can go below "
        f"{floor:.4g}{verdict}; the intervals rest on normality. Every metric is in paired.csv.\n"
    )


def _difference(row: Any) -> str:
    if pd.isna(row.ci_low):
        return f"{row.difference:+.3f}"
    return f"{row.difference:+.3f} [{row.ci_low:+.3f}, {row.ci_high:+.3f}] p {row.p_sign_flip:.3g}"


def rank_table(cells: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row per cell, one column per method, for `friedman`.

    `cells`: long tables of several cells, one below the other. `|metric|` takes the mean's distance from 0.
    """
    name = metric.strip("|")
    rows = cells[(cells["metric"] == name) & ~cells["method"].isin(NOT_RANKED)]
    values = rows["mean"].abs() if name != metric else rows["mean"]
    return rows.assign(mean=values).pivot(index="cell", columns="method", values="mean")


def ranking(cells: pd.DataFrame, methods: Iterable[str]) -> dict[str, FriedmanResult]:
    """Friedman ranking of these methods by each of `RANKED` over the cells that have them all."""
    results = {}
    for metric, higher_is_better in RANKED.items():
        table = rank_table(cells, metric)
        columns = [method for method in methods if method in table.columns]
        results[metric] = friedman(table[columns], higher_is_better=higher_is_better)
    return results


def ranking_markdown(results: Mapping[str, FriedmanResult]) -> str:
    """The rankings in words: average ranks, Friedman's p, Nemenyi's critical difference, pairs that differ by Holm."""
    lines = []
    for metric, result in results.items():
        ranked = sorted(zip(result.average_ranks, result.methods))
        listed = ", ".join(f"{method} {rank:.2f}" for rank, method in ranked)
        lines.append(f"- {metric}, {result.n_cells} cells, average ranks (1 is best): {listed or 'none'}")
        if result.p_value is not None:
            pairs = [f"{pair.first} / {pair.second}" for pair in result.pairs if pair.p_holm < 0.05]
            lines.append(
                f"  Friedman p {result.p_value:.3g}; by Nemenyi ranks {result.critical_difference:.2f} apart or "
                f"more differ at 5 %; pairs with Holm's p below 0.05: {', '.join(pairs) or 'none'}"
            )
        lines.append(f"  {result.note}")
    return "\n".join(lines) + "\n"


def wide_table(long: pd.DataFrame, order: Iterable[str], headings: Mapping[str, str] = SHOWN) -> pd.DataFrame:
    """One row per method, `mean [95 % interval]` under people's headings; no column or row without figures."""
    shown = long[long["metric"].isin(headings)]
    text = shown.assign(text=[_mean_and_interval(row) for row in shown.itertuples()])
    wide = text.pivot(index="method", columns="metric", values="text")
    columns = [metric for metric in headings if metric in wide.columns]
    rows = [method for method in order if method in wide.index]
    wide = wide.reindex(index=rows, columns=columns).rename(columns=dict(headings)).fillna("–")
    return wide.rename_axis(index="method", columns=None).reset_index()


def short_table(long: pd.DataFrame, order: Iterable[str], verdicts: Mapping[str, str]) -> pd.DataFrame:
    """One row per method, its means under `SHORT` and its verdict: what the 100 columns of a console hold."""
    wide = means_table(long, order, SHORT)
    digits = {"time/total_s": 1}
    shown = pd.DataFrame({"method": wide["method"]})
    for metric in wide.columns[1:]:
        shown[SHORT[metric]] = ["–" if pd.isna(mean) else f"{mean:.{digits.get(metric, 3)}f}" for mean in wide[metric]]
    return shown.assign(verdict=[verdicts.get(method, "") for method in wide["method"]])


def means_table(long: pd.DataFrame, order: Iterable[str], metrics: Iterable[str]) -> pd.DataFrame:
    """One row per method and one column per metric, the means as numbers; columns that nothing fills are left out."""
    metrics = list(dict.fromkeys(metrics))
    shown = long[long["metric"].isin(metrics)].pivot(index="method", columns="metric", values="mean")
    columns = [metric for metric in metrics if metric in shown.columns]
    wide = shown.reindex(index=[method for method in order if method in shown.index], columns=columns)
    return wide.rename_axis(index="method", columns=None).reset_index()


def _mean_and_interval(row: Any) -> str:
    digits = 1 if row.metric in ("time/total_s", "time/speedup") else 3
    mean = f"{row.mean:.{digits}f}"
    return mean if pd.isna(row.ci_low) else f"{mean} [{row.ci_low:.{digits}f}, {row.ci_high:.{digits}f}]"


def chain_shown(chain: pd.DataFrame) -> pd.DataFrame:
    """The chain of answered requests as text: the versions that answered, each figure with naive's in brackets.

    `chain` has a row per request and method: position, request, method, in_service, n, then `<set>/accuracy` of the
    method, `naive/<set>/accuracy` of the retrained models, `original/test/accuracy`, empty where there is no figure.
    Columns of earlier requests are named `earlier-…`.
    """
    if chain.empty:
        return pd.DataFrame()
    served = chain[chain["in_service"]]
    own = [name for name in chain if name.endswith("/accuracy") and not name.startswith(("naive/", "original/"))]
    shown = pd.DataFrame({"": served["position"], "request": served["request"], "method": served["method"]})
    for name in own:
        beside = served.get(f"naive/{name}", pd.Series(np.nan, index=served.index))
        shown[name.removesuffix("/accuracy").replace("earlier-", "on ")] = [
            "–" if pd.isna(value) else f"{value:.3f}" + ("" if pd.isna(naive) else f" ({naive:.3f})")
            for value, naive in zip(served[name], beside)
        ]
    shown["test before"] = [f"{value:.3f}" for value in served["original/test/accuracy"]]
    return shown


def narrowed(table: pd.DataFrame, width: int) -> pd.DataFrame:
    """A table without the columns before its last one that do not fit into so many characters."""
    while len(markdown(table).partition("\n")[0]) > width and len(table.columns) > 4:
        table = table.drop(columns=table.columns[-2])
    return table


def markdown(table: pd.DataFrame) -> str:
    """A Markdown table, its columns aligned for reading as plain text too."""
    rows = [list(map(str, table.columns)), *(list(map(str, row)) for row in table.itertuples(index=False))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.columns))]
    lines = ["| " + " | ".join(text.ljust(width) for text, width in zip(row, widths)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def listed(sentences: Iterable[str]) -> str:
    """A Markdown list."""
    return "".join(f"- {sentence}\n" for sentence in sentences)
