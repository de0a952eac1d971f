"""The representations of a clip: three kinds of images, and the waveform itself."""

from __future__ import annotations

from torch import Tensor, nn

from audio_mu.config import Recipe
from audio_mu.config.parsers import WAVEFORM
from audio_mu.data.audio import SAMPLE_RATE

N_FFT = 512
HOP = 256
N_MELS = 32
LOG_FLOOR = 1e-6


class LogStandardised(nn.Module):
    """(ln(max(x, 1e-6)) - shift) / scale with fixed constants: nothing here is learned from any recording."""

    def __init__(self, shift: float, scale: float) -> None:
        super().__init__()
        self.shift, self.scale = shift, scale

    def forward(self, power: Tensor) -> Tensor:
        return (power.clamp(min=LOG_FLOOR).log() - self.shift) / self.scale


class Frontend(nn.Module):
    """Waveforms float32 [n, samples] at 16 kHz → features float32 [n, 1, *feature_shape].

    `mel`: power mel spectrogram, 32 HTK bands 0–8 kHz, no logarithm, no normalisation. `spec`: the power
    spectrogram in dB, at most 80 dB below each clip's maximum. `logmel`: the natural logarithm of mel, shifted
    and scaled by the recipe's constants. Window 512 (Hann), hop 256, centred, reflect padding. `waveform`: the samples
    as they are, for a network that brings its own front end.
    """

    def __init__(self, pipeline: str, recipe: Recipe) -> None:
        super().__init__()
        self.steps = nn.Sequential()
        if pipeline == WAVEFORM:
            return
        # Not at the top: a start that finds its features in the cache does without it, half a second sooner.
        from torchaudio.transforms import AmplitudeToDB, MelSpectrogram, Spectrogram

        window = {"n_fft": N_FFT, "win_length": N_FFT, "hop_length": HOP}
        mel = {"sample_rate": SAMPLE_RATE, "n_mels": N_MELS, "f_min": 0.0, "f_max": SAMPLE_RATE / 2}
        steps: dict[str, list[nn.Module]] = {
            "mel": [MelSpectrogram(**mel, **window)],
            "logmel": [
                MelSpectrogram(**mel, **window),
                LogStandardised(recipe.logmel_shift, recipe.logmel_scale),
            ],
            "spec": [Spectrogram(**window), AmplitudeToDB("power", top_db=80.0)],
        }
        self.steps = nn.Sequential(*steps[pipeline])

    def forward(self, waveforms: Tensor) -> Tensor:
        # Four dimensions on the way in: AmplitudeToDB takes its maximum over the last three, that is per clip.
        return self.steps(waveforms.unsqueeze(1))


def feature_shape(pipeline: str, clip_samples: int) -> tuple[int, ...]:
    """(frequency bins, frames) of a clip of so many samples; (samples,) of a waveform."""
    if pipeline == WAVEFORM:
        return (clip_samples,)
    return (N_FFT // 2 + 1 if pipeline == "spec" else N_MELS), clip_samples // HOP + 1
