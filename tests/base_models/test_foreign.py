"""Weights of others: nothing of theirs is run, and they fit the network or are refused."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("odd", "told"),
    [
        (lambda: torch.ones(2, 1, 3).to_sparse(), r"is sparse \(torch.sparse_coo\): save value.to_dense\(\)"),
        (lambda: torch.ones(2, 3).to_sparse_csr(), r"is sparse \(torch.sparse_csr\)"),
        (
            lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
            r"is quantised: save value.deq",
        ),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged), "is nested"),
        (lambda: torch.ones(2, 1, 3, device="meta"), "is without numbers here, on the device meta"),
        (lambda: torch.full((2, 1, 3), torch.nan), "holds NaN or infinity"),
    ],
)
def test_a_tensor_that_is_no_bare_numbers_is_told(tmp_path: Path, odd: Callable, told: str) -> None:
    """Catches a traceback of torch, or a weight that passes for another, where a checkpoint has odd tensors."""
    torch.save({"0.weight": odd()}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=f"'0.weight' {told}"):
        read_foreign(str(tmp_path / "a.pt"))


@pytest.mark.parametrize(
    "dtype", ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "complex64", "bool", "int64", "uint8", "uint16"]
)
def test_a_weight_of_other_numbers_is_told(network: nn.Module, tmp_path: Path, dtype: str) -> None:
    """Catches types that torch cannot test for NaN, and numbers that mean nothing without their scales."""
    odd = torch.ones(2, 1, 3).to(getattr(torch, dtype))
    save_file({**network.state_dict(), "0.weight": odd}, tmp_path / "a.safetensors")
    state = read_foreign(str(tmp_path / "a.safetensors"))
    with pytest.raises(UserError, match=rf"'0.weight' is torch.{dtype}, in net it is torch.float32: save it as that"):
        fitted("a", state, network, "net")


def test_a_count_of_complex_numbers_is_told(network: nn.Module, tmp_path: Path) -> None:
    """Catches an imaginary part that is dropped because neither type is one of floating point."""
    save_file({**network.state_dict(), "1.num_batches_tracked": torch.tensor(1j)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"is torch.complex64, in net it is torch.int64"):
        fitted("a", read_foreign(str(tmp_path / "a.safetensors")), network, "net")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (
            "model.safetensors.index.json",
            b'{"metadata": {}, "weight_map": {"b": "m-2.safetensors", "a": "m-1.safetensors", "c": "m-1.safetensors"}}',
            r"is the index of 2 files \(m-1.safetensors, m-2.safetensors\), .* join them .*torch.load_file\(file\)",
        ),
        (
            "x.bin.index.json",
            b'{"weight_map": {"a": "m-1.bin"}}',
            r"is the index of 1 file .*whole \|= torch.load\(file",
        ),
        ("config.json", b'{"hidden_size": 4}', "is no file of weights: save"),
        ("a.pt", b"hello world", r"is damaged, or no file of weights \(\w+: .*\): save"),
        ("a.pt", b"", r"is damaged, or no file of weights \(EOFError\): save"),
        ("a.safetensors", b"{}", r"is damaged, or no file of weights \(SafetensorError: .*header too small\): save"),
    ],
)
def test_a_file_without_weights_says_what_it_is(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    """Catches an index of several files called pickled, and torch's advice cut in the middle of a word."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=told):
        read_foreign(str(tmp_path / name))


def test_a_damaged_archive_and_torchscript_say_so(tmp_path: Path) -> None:
    """Catches the whole of torch's advice, to read the file with its code, in an error of ours."""
    torch.save({"a": torch.ones(1_000)}, tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:900])
    with pytest.raises(UserError, match=r"is damaged, .*failed finding central directory\): save") as raised:
        read_foreign(str(tmp_path / "a.pt"))
    assert "weights_only" not in str(raised.value)
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "b.pt")
    with pytest.raises(UserError, match="is TorchScript, which is code: save the state_dict"):
        read_foreign(str(tmp_path / "b.pt"))
