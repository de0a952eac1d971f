"""The table of a search's trials, and the file that hands its choice on to `method_config`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import yaml

from audio_mu.audit.rehearsal import Score, surely_better, told_apart
from audio_mu.system.hashing import canonical_json
from audio_mu.unlearning.trials import Trial, Values

SURELY, BETTER, NO_BETTER = "surely", "perhaps", "no"
"""Whether a trial is better than doing nothing."""


def trials_table(trials: Sequence[Trial], scores: Mapping[str, Score], reference: Score, base: Score) -> pd.DataFrame:
    """One row per trial, the methods in their order, the best first and chosen.

    `better` says whether a trial is better than doing nothing (`base`): surely, perhaps or no. Of a method's trials one
    looks better by chance, so that their number counts.
    """
    rows, nothing = [], base.against(reference)
    tried = {trial.method: sum(other.method == trial.method for other in trials) for trial in trials}
    apart = told_apart(base, reference)
    for trial in trials:
        score = scores[trial.key]
        sure = apart and surely_better(score, base, reference, tried[trial.method])
        perhaps = score.against(reference) < nothing
        figures = {name.replace("/", "_"): value for name, value in score.as_metrics().items()}
        rows.append(
            {
                "method": trial.method,
                "trial": trial.number,
                "score": score.against(reference),
                "chosen": False,
                "better": SURELY if sure else BETTER if perhaps else NO_BETTER,
                "values": canonical_json(dict(trial.values)),
                **figures,
            }
        )
    table = pd.DataFrame(rows)
    order = {method: place for place, method in enumerate(dict.fromkeys(table["method"]))}
    # Of equal scores the first trial: the method as it comes before anything drawn.
    table = table.sort_values(
        ["method", "score", "trial"], key=lambda column: column.map(order) if column.name == "method" else column
    ).reset_index(drop=True)
    table["chosen"] = ~table["method"].duplicated()
    return table


def tuned_yaml(model: str, request: str, table: pd.DataFrame, chosen: Mapping[str, Values]) -> str:
    """The chosen values as `method_config` reads them.

    A method that is best as it comes is only a comment, as is one whose best trial is not surely better than nothing.
    """
    best = table[table["chosen"]].set_index("method")
    counts = table.groupby("method").size()
    sure = {method: best.loc[method, "better"] == SURELY for method in chosen}
    head = [
        f"# chosen by -e tune for {model}, request {request}",
        "# score: gap of the forget confidence to a retrained network + lack of validation accuracy; 0 is best",
        *(
            f"# {method}: score {best.loc[method, 'score']:.4f}, the best of {counts[method]}"
            f"{'' if values else ', as it comes'}"
            f"{'' if sure[method] else ': not surely better than doing nothing, not recommended'}"
            for method, values in chosen.items()
        ),
    ]
    differing = {method: dict(values) for method, values in chosen.items() if values and sure[method]}
    body = yaml.safe_dump(differing, sort_keys=False) if differing else ""
    return "\n".join(head) + "\n" + body


def recommendation(table: pd.DataFrame, reference: Score, base: Score, use: str) -> str:
    """What to do with the result of a search, in one line; `use`: the command that takes it."""
    if not told_apart(base, reference):
        return (
            f"nothing is recommended: the forget confidence of a network that nothing was done to "
            f"({base.confidence:.3f}) cannot be told from a retrained one's ({reference.confidence:.3f}) on this "
            "request; register=naive needs no tuning"
        )
    best = table[table["chosen"]]
    unsure = list(best.loc[best["better"] != SURELY, "method"])
    if len(unsure) == len(best):
        return "nothing is recommended: no trial is surely better than doing nothing; try more trials or other methods"
    left_out = f" (not of {', '.join(unsure)}: not surely better than doing nothing)" if unsure else ""
    return f"use it{left_out}: {use}"
