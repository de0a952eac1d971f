"""Atomic writing, hashing, and seeding."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from audio_mu.seeding import derive, seeded
from audio_mu.system import hashing, writing


def test_an_interrupted_folder_leaves_what_was_there(tmp_path: Path) -> None:
    """Catches a folder that is replaced before it is whole, and temporary files left behind."""
    target = tmp_path / "cache"
    with writing.atomic_folder(target) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(RuntimeError), writing.atomic_folder(target) as folder:
        (folder / "a").write_text("new")
        raise RuntimeError
    assert (target / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_write_atomic_replaces_whole_files(tmp_path: Path) -> None:
    """Catches a write that truncates the old file before the new one is there."""
    path = tmp_path / "file"
    writing.write_atomic(path, "one")
    with pytest.raises(TypeError):
        writing.write_atomic(path, 3)  # type: ignore[arg-type]
    assert path.read_text() == "one"
    writing.write_atomic(path, b"two")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"two"


def test_lock_excludes(tmp_path: Path) -> None:
    """Catches a lock that two holders get at once."""
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with writing.locked(tmp_path / "thing"):
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_hashes_tell_lists_apart() -> None:
    """Catches parts that are simply joined, and JSON whose order matters."""
    assert hashing.sha256("ab", "c") != hashing.sha256("a", "bc")
    assert hashing.hash_of({"a": 1, "b": 2}) == hashing.hash_of({"b": 2, "a": 1})


def test_derived_seeds_differ_by_purpose() -> None:
    """Catches two purposes or two seeds sharing their draws."""
    seeds = {derive(seed, *words) for seed in (40, 41) for words in (("pop", "regrow"), ("cosine", "regrow"), ("pop",))}
    assert len(seeds) == 6
    assert derive(40, "a", "b") != derive(40, "ab")
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeding_is_scoped() -> None:
    """Catches draws that leak into the caller's generators, or that depend on them."""
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = (random.random(), np.random.rand(), torch.rand(1).item())
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    with seeded(5):
        first = (random.random(), np.random.rand(), torch.rand(1).item())
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    with seeded(5):
        assert (random.random(), np.random.rand(), torch.rand(1).item()) == first
