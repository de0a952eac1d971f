"""Tables of a comparison: averages, paired differences and rankings, against scipy and by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from audio_mu.report import tables

SEEDS = (40, 41, 42, 43, 44)


def values(method: str, metric: str, numbers: list[float], cell: str = "c") -> pd.DataFrame:
    rows = [(cell, "item-10", method, metric, seed, x) for seed, x in zip(SEEDS, numbers)]
    return pd.DataFrame(rows, columns=["cell", "request", "method", "metric", "seed", "value"])


def test_paired_differences() -> None:
    """Catches unpaired intervals, signs the wrong way round, and a p value below what five pairs allow."""
    pop, naive = [0.9, 0.8, 0.95, 0.7, 0.9], [0.6, 0.55, 0.6, 0.5, 0.65]
    frame = pd.concat([values("pop", "forget/accuracy", pop), values("naive", "forget/accuracy", naive)])
    table = tables.paired_table(frame)
    assert list(table.columns) == tables.PAIRED_COLUMNS
    assert len(table) == 1
    row = table.iloc[0]
    differences = np.subtract(pop, naive)
    interval = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert row["difference"] == pytest.approx(differences.mean())
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((interval.low, interval.high))
    assert row["p_sign_flip"] == row["p_floor"] == 0.0625
    assert row["n"] == 5
    shown = tables.paired_shown(table, ["pop"])
    assert shown.loc[0, "forget/accuracy"].startswith("+0.270 [+")
    assert shown.loc[0, "forget/accuracy"].endswith("p 0.0625")


def test_pairs_are_common_seeds_of_one_cell() -> None:
    """Catches differences to the naive of another cell, and seeds that naive does not have."""
    frame = pd.concat(
        [
            values("pop", "mia/auc", [0.6, 0.7, 0.8]),
            values("naive", "mia/auc", [0.5, 0.5]),
            values("pop", "mia/auc", [0.9], cell="other"),
            values("pop", "time/total_s", [1.0, 2.0]),
        ]
    )
    table = tables.paired_table(frame)
    assert table[["cell", "method", "metric", "seeds"]].to_numpy().tolist() == [["c", "pop", "mia/auc", "40 41"]]
    assert table["difference"].item() == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("metric", "seeds", "low", "high"),
    [
        ("forget/accuracy", [0.4, 0.9], 0.0, 1.0),
        ("audit/rmia_auc", [0.5, 0.9], 0.0, 1.0),
        ("mia/tpr_at_fpr_0.1pct", [0.0, 0.4], 0.0, 1.0),
        ("gap/tow", [0.5, 1.0], 0.0, 1.0),
        ("forget/loss", [0.1, 3.0], 0.0, None),
        ("time/total_s", [1.0, 9.0], 0.0, None),
        ("distance/js", [0.1, 0.6], 0.0, float(np.log(2))),
        ("gap/mia_auc", [-0.2, 0.2], None, None),
        ("gap/forget_accuracy", [-0.4, 0.4], None, None),
    ],
)
def test_intervals_stay_within_what_is_possible(metric, seeds, low, high) -> None:
    """Catches shares above 1 and seconds below 0 in front of people, and a signed difference that is cut."""
    whole = stats.ttest_1samp(seeds, 0).confidence_interval(0.95)
    row = tables.long_table(values("pop", metric, seeds)).iloc[0]
    assert row["ci_low"] == pytest.approx(whole.low if low is None else low)
    assert row["ci_high"] == pytest.approx(whole.high if high is None else high)


def test_whole_numbers_have_no_interval() -> None:
    """Catches a deviation of one number that all seeds make together."""
    whole = pd.DataFrame([("c", "item-10", "pop", "audit/epsilon_bound", 0.4, "40 41 42")],
                         columns=["cell", "request", "method", "metric", "value", "seeds"])  # fmt: skip
    row = tables.whole_rows(whole).iloc[0]
    assert list(row.index) == tables.COLUMNS
    assert (row["mean"], row["n"], row["seeds"]) == (0.4, 3, "40 41 42")
    assert np.isnan([row["std"], row["ci_low"], row["ci_high"]]).all()


def test_ranking_over_cells() -> None:
    """Catches ranks the wrong way round, naive among the ranked, and signs that make a large gap a small one."""
    gaps = {"a": [0.9, 0.8, 0.95], "b": [0.7, 0.6, 0.7], "c": [0.2, 0.1, 0.3], "naive": [1.0, 1.0, 1.0]}
    auc = {"a": [0.01, -0.02, 0.0], "b": [-0.1, 0.1, -0.2], "c": [-0.4, -0.3, 0.4], "naive": [0.0, 0.0, 0.0]}
    long = pd.DataFrame(
        [
            (f"cell {i}", "item-10", method, metric, number)
            for metric, table in (("gap/tow", gaps), ("gap/mia_auc", auc))
            for method, numbers in table.items()
            for i, number in enumerate(numbers)
        ],
        columns=["cell", "request", "method", "metric", "mean"],
    )
    ranked = tables.ranking(long, ["a", "b", "c"])
    for metric in ("gap/tow", "|gap/mia_auc|"):
        assert ranked[metric].methods == ("a", "b", "c")
        assert ranked[metric].average_ranks == (1, 2, 3)
        assert ranked[metric].p_value == pytest.approx(stats.friedmanchisquare([1] * 3, [2] * 3, [3] * 3).pvalue)
    assert ranked["distance/js"].n_cells == 0
    text = tables.ranking_markdown(ranked)
    assert "gap/tow, 3 cells, average ranks (1 is best): a 1.00, b 2.00, c 3.00" in text
    assert "share networks" in text
