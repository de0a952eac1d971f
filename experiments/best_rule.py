"""How often `register=best` takes a method that has forgotten nothing, and how often one that equals retraining.

    python -m experiments.best_rule [--trials 100] [--output results/best-rule.csv]

Draws the answers of invented models to the recordings to forget and to 100 unseen ones: of naive, of the original,
which recognises `gap` more of the former, and of twenty methods. Each recording has a difficulty of its own, each model
a strength that depends on its seed, and each answer is drawn anew: methods that have forgotten nothing differ as much
from the original as models of other seeds do. In the rows without a good method all twenty answer as the original does;
in the others the first answers as naive does. Gaps, errors and attack are computed by the package's own functions, and
`best_method` judges. About two minutes; the same figures every time.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from experiments.project import RESULTS
from tests.invented_models import Cell, counted

CELLS = [
    *(Cell(gap, n, 5, has_good=False) for gap in (0.02, 0.03, 0.06) for n in (50, 200)),
    *(Cell(gap, n, 5, has_good=True) for gap in (0.02, 0.03, 0.06, 0.15, 0.3) for n in (50, 200)),
    *(Cell(gap, 200, 1, good) for gap in (0.06, 0.3) for good in (False, True)),
]


def main() -> None:
    """Count and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100, help="without a good method; a quarter with one")
    parser.add_argument("--output", type=Path, default=RESULTS / "best-rule.csv")
    given = parser.parse_args()
    rows = []
    for cell in CELLS:
        rows.append(counted(cell, given.trials // 4 if cell.has_good else given.trials))
        print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(given.output, index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
