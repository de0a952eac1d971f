"""Weights of others: nothing of theirs is run, and they fit the network or are refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from audio_mu.base_models.fingerprints import state_hash, weights_hash, weights_tags
from audio_mu.base_models.foreign import fitted, places_by_seed, read_foreign
from audio_mu.config import Config
from audio_mu.errors import UserError


@pytest.fixture
def network() -> nn.Module:
    """With a count of batches, an integer without dimensions."""
    return nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_every_file_gives_the_same_weights(network: nn.Module, tmp_path: Path, prefix: str) -> None:
    """Catches a hash that depends on the file, a wrapper's prefix that stays, and a lost buffer."""
    state = {prefix + name: value for name, value in network.state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pt")
    torch.save({"epoch": 3, "model_state_dict": state}, tmp_path / "c.pth")
    hashes = set()
    for name in ("a.safetensors", "b.pt", "c.pth"):
        place = str(tmp_path / name)
        found = fitted(place, read_foreign(place), network, "net")
        assert list(found) == list(network.state_dict())
        for key, value in network.state_dict().items():
            np.testing.assert_array_equal(found[key], value.numpy())
        hashes.add(state_hash(found))
    assert len(hashes) == 1


def test_half_precision_becomes_the_network_s(network: nn.Module, tmp_path: Path) -> None:
    """Catches weights of 16 bits that are refused, that stay so, or that are not known for those of the network."""
    own = {name: value.numpy() for name, value in network.state_dict().items()}
    for dtype in (torch.bfloat16, torch.float16):
        save_file(
            {n: v.to(dtype) if v.is_floating_point() else v for n, v in network.state_dict().items()},
            tmp_path / "a.safetensors",
        )
        found = fitted("a", read_foreign(str(tmp_path / "a.safetensors")), network, "net")
        assert found["0.weight"].dtype == np.float32
        assert weights_hash(found) != weights_hash(own)
        assert weights_hash(found) in weights_tags(own).values()


class Bomb:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("exploded",)


def test_no_code_of_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a file that is unpickled freely."""
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Bomb()}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Bomb()))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(UserError, match="without running code"):
            read_foreign(str(tmp_path / name))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("weights", "seeds", "expected"),
    [
        ("a.pt", "", {40: "a.pt"}),
        ("a.pt", "7", {7: "a.pt"}),
        ("41=a.pt,40=b=c.pt", "", {41: "a.pt", 40: "b=c.pt"}),
        ("40=a.pt", "40", {40: "a.pt"}),
        ("a.pt", "40,41", None),
        ("40=a.pt,b.pt", "", None),
        ("40=a.pt,40=b.pt", "", None),
        ("40=a.pt", "41", None),
        ("", "", None),
    ],
)
def test_which_seed_a_file_is_of(weights: str, seeds: str, expected: dict[int, str] | None) -> None:
    """Catches weights that become the model of another seed than was said."""
    config = Config.from_text({"weights": weights} | ({"seeds": seeds} if seeds else {}))
    if expected is None:
        with pytest.raises(UserError, match="weights"):
            places_by_seed(config)
    else:
        assert places_by_seed(config) == expected
