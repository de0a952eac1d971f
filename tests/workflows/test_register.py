"""What a refusal to register names as the way out."""

from __future__ import annotations

import pytest

from audio_mu.config import Config
from audio_mu.errors import UserError
from audio_mu.store.queries import Finished
from audio_mu.workflows.cells import CellRuns
from audio_mu.workflows.register import _allowed_method


def cell(remain: float) -> CellRuns:
    """naive and omp on one seed, naive with this accuracy on the remain set and omp far below it."""
    own = {"remain/accuracy": remain - 0.2, "gap/remain_accuracy": -0.2, "gap/forget_accuracy": 0.0, "gap/tow": 0.8}
    metrics = {"naive": {"remain/accuracy": remain}, "omp": own}
    runs = {(name, 40): Finished(name, name, {}, values, 0) for name, values in metrics.items()}
    return CellRuns("c", "item-10", runs)


@pytest.mark.parametrize(("remain", "is_offered"), [(0.9, True), (0.3, False)])
@pytest.mark.parametrize("register", ["best", "omp"])
def test_naive_is_offered_unless_it_is_what_fails(register: str, remain: float, is_offered: bool) -> None:
    """Catches a user sent to a retrained model that is refused in turn."""
    with pytest.raises(UserError, match="is refused: ") as raised:
        _allowed_method(Config.from_text({"register": register}), cell(remain))
    assert ("register=naive, the retrained model" in str(raised.value)) == is_offered
