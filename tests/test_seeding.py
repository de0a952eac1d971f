"""Seeds of purposes, and their scope."""

from __future__ import annotations

import random

import numpy as np
import torch

from audio_mu.seeding import derive, seeded


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
