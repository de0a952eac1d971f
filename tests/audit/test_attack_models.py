"""The data of the attack models: how few recordings are enough."""

from __future__ import annotations

import pandas as pd
import pytest

from audio_mu.audit.attack_models import balanced_rows, train_attack
from audio_mu.errors import UserError


def losses(members: int, nonmembers: int) -> pd.DataFrame:
    """A base model's losses of so many recordings."""
    n = members + nonmembers
    member = [1] * members + [0] * nonmembers
    return pd.DataFrame(
        {"clip_id": [f"c{i:02d}" for i in range(n)], "loss": [0.1 * i for i in range(n)], "member": member}
    )


@pytest.mark.parametrize("few", [0, 1, 2])
def test_a_handful_of_recordings_is_refused_in_words(few: int) -> None:
    """Catches scikit-learn's traceback where hardly anything tells members from non-members."""
    told = f"attack: 9 training clips and {few} test clips that are no copies of them are too few, 3 of each are needed"
    with pytest.raises(UserError, match=told):
        balanced_rows({40: losses(9, few)})
    with pytest.raises(UserError, match=told):  # every file twice: the test clips are copies
        balanced_rows({40: losses(9, 8)}, frozenset(f"c{9 + i:02d}" for i in range(8 - few)))
    with pytest.raises(UserError, match=f"attack: {few} training clips and 9 test clips"):
        balanced_rows({40: losses(few, 9)})


def test_the_fewest_that_are_taken_can_be_trained_on() -> None:
    """Catches a limit that lets through what cannot be trained on."""
    rows = balanced_rows({40: losses(9, 3)})
    assert rows.groupby("label")["part"].agg(set).map(len).tolist() == [3, 3]
    _, quality = train_attack(rows, 1, "log_loss")
    assert 0 <= quality[0].balanced_accuracy <= 1
