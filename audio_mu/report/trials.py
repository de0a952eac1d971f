"""The table of a search's trials, and the file that hands its choice on to `method_config`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import yaml

from audio_mu.audit.rehearsal import Score
from audio_mu.system.hashing import canonical_json
from audio_mu.unlearning.trials import Trial, Values


def trials_table(trials: Sequence[Trial], scores: Mapping[str, Score], reference: Score) -> pd.DataFrame:
    """One row per trial, the methods in their order, the best first and chosen."""
    rows = []
    for trial in trials:
        score = scores[trial.key]
        figures = {name.replace("/", "_"): value for name, value in score.as_metrics().items()}
        rows.append(
            {
                "method": trial.method,
                "trial": trial.number,
                "score": score.against(reference),
                "chosen": False,
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
    """The chosen values as `method_config` reads them; a method that is best as it comes is only a comment."""
    best = table[table["chosen"]].set_index("method")["score"]
    counts = table.groupby("method").size()
    head = [
        f"# chosen by -e tune for {model}, request {request}",
        "# score: gap of the forget confidence to a retrained network + lack of validation accuracy; 0 is best",
        *(
            f"# {method}: score {best[method]:.4f}, the best of {counts[method]}{'' if values else ', as it comes'}"
            for method, values in chosen.items()
        ),
    ]
    differing = {method: values for method, values in chosen.items() if values}
    body = yaml.safe_dump(differing, sort_keys=False) if differing else ""
    return "\n".join(head) + "\n" + body
