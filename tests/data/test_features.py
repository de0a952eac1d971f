"""The three representations by their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audio_mu.config import load_recipe
from audio_mu.data.features import Frontend, feature_shape

N_SAMPLES = 16_000


def power_spectrogram(waveform: np.ndarray) -> np.ndarray:
    """[257, frames] by the definition: reflected borders, a periodic Hann window, one matrix product per frame."""
    padded = np.pad(waveform.astype(np.float64), 256, mode="reflect")
    n = np.arange(512)
    window = np.sin(np.pi * n / 512) ** 2
    transform = np.exp(-2j * np.pi * np.outer(np.arange(257), n) / 512)
    frames = np.stack([padded[start : start + 512] for start in range(0, len(padded) - 511, 256)], axis=1)
    return np.abs(transform @ (window[:, None] * frames)) ** 2


def mel_filters() -> np.ndarray:
    """[32, 257]: triangles between points equally spaced on the HTK scale, 2595 log10(1 + f / 700), height 1."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8_000 / 700), 34) / 2595) - 1)
    bins = np.linspace(0, 8_000, 257)
    return np.stack([np.interp(bins, edges[i : i + 3], [0, 1, 0]) for i in range(32)])


@pytest.fixture
def waveform() -> np.ndarray:
    """A second that fades from a loud chirp to exact silence, so that every floor is met."""
    seconds = np.arange(N_SAMPLES) / 16_000
    chirp = np.sin(2 * np.pi * (200 + 1_500 * seconds) * seconds) * np.exp(-8 * seconds)
    return np.where(seconds < 0.7, chirp, 0).astype(np.float32)


def computed(pipeline: str, *waveforms: np.ndarray) -> np.ndarray:
    frontend = Frontend(pipeline, load_recipe("SyntheticDigits"))
    return frontend(torch.from_numpy(np.stack(waveforms))).numpy()


def test_mel_by_its_definition(waveform: np.ndarray) -> None:
    """Catches another mel scale, norm, window or border, and a logarithm."""
    expected = mel_filters() @ power_spectrogram(waveform)
    got = computed("mel", waveform)[0, 0]
    assert got.shape == feature_shape("mel", N_SAMPLES) == (32, 63)
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=1e-6 * expected.max())
    assert (got == 0).any()


def test_spec_is_decibels_above_each_clips_floor(waveform: np.ndarray) -> None:
    """Catches amplitudes for power, a missing floor, and a floor shared by the clips of a batch."""
    power = power_spectrogram(waveform)
    for got, scale in zip(computed("spec", waveform, 0.01 * waveform), (1.0, 1e-4), strict=True):
        decibels = 10 * np.log10(np.maximum(scale * power, 1e-10))
        expected = np.maximum(decibels, decibels.max() - 80)
        assert got[0].shape == feature_shape("spec", N_SAMPLES) == (257, 63)
        np.testing.assert_allclose(got[0], expected, atol=0.02)
        assert got[0].min() == pytest.approx(decibels.max() - 80, abs=1e-3)


def test_a_waveform_is_left_as_it_is(waveform: np.ndarray) -> None:
    """Catches a scaling or a second channel before a front end that the network brings itself."""
    got = computed("waveform", waveform, 0.5 * waveform)
    assert got.shape[2:] == feature_shape("waveform", N_SAMPLES) == (N_SAMPLES,)
    np.testing.assert_array_equal(got[:, 0], [waveform, 0.5 * waveform])


def test_logmel_is_a_fixed_function_of_mel(waveform: np.ndarray) -> None:
    """Catches log10, another floor, and standardisation by the data."""
    recipe = load_recipe("SyntheticDigits")
    mel = mel_filters() @ power_spectrogram(waveform)
    expected = (np.log(np.maximum(mel, 1e-6)) - recipe.logmel_shift) / recipe.logmel_scale
    np.testing.assert_allclose(computed("logmel", waveform)[0, 0], expected, atol=5e-3 / recipe.logmel_scale)
