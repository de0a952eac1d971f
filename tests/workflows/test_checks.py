"""What cannot work is refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from audio_mu.config import Config
from audio_mu.errors import UserError
from audio_mu.workflows.checks import check


def test_a_gpu_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches features computed, and every task failed one by one, for a device that this machine lacks."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    given = {"dataset": "folder", "dataset_name": "t", "data_dir": str(tmp_path), "device": "cuda"}
    with pytest.raises(UserError, match="device=cuda: this machine has no GPU that torch can use: give device=cpu"):
        check(Config.from_text(given))
    with pytest.raises(UserError, match="device=cuda"):
        check(Config.from_text({**given, "engine": "ray"}), on_workers=False)
    with pytest.raises(
        UserError
    ) as raised:  # whose workers may have one: what is refused is the lack of Ray, or nothing
        check(Config.from_text({**given, "engine": "ray", "register": "naive", "save_models": "none"}))
    assert "device" not in str(raised.value)
    for name in ("mps", "cuda:99"):
        with pytest.raises(UserError, match=f"device='{name}' is not allowed"):
            Config.from_text({**given, "device": name})
