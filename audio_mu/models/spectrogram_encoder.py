"""The Audio Spectrogram Transformer, trained by others on AudioSet, with a new head.

The network is of the optional package transformers. It hears waveforms: its features are computed in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from audio_mu.errors import UserError, one_line
from audio_mu.models.pretrained import Pretrained

FRAME, HOP, N_FFT, BANDS = 400, 160, 512, 128  # samples of 16 kHz; bands of 20 Hz to 8 kHz
PREEMPHASIS, FLOOR = 0.97, 1.1920929e-07
MEAN, SPREAD = -4.2677393, 2 * 4.5689974  # of AudioSet
PATCH, STRIDE = 16, 10
ROWS = (BANDS - PATCH) // STRIDE + 1  # of patches, along the frequencies
FEWEST_SAMPLES = FRAME + (PATCH - 1) * HOP


class LogMel(nn.Module):
    """Waveforms float32 [b, samples] at 16 kHz, full scale 1 → log-mel features float32 [b, frames, 128].

    Kaldi's filter bank: frames of 25 ms every 10 ms without their mean, pre-emphasised, under a Hann window; power in
    128 triangles of the mel scale, its logarithm, less the mean of AudioSet, divided by twice its standard deviation.
    """

    bands: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        from torchaudio.compliance.kaldi import get_mel_banks

        bands, _ = get_mel_banks(BANDS, N_FFT, 16_000.0, 20.0, 0.0, 100.0, -500.0, 1.0)  # the last three warp nothing
        self.register_buffer("bands", functional.pad(bands, (0, 1)).T.contiguous(), persistent=False)
        self.register_buffer("window", torch.hann_window(FRAME, periodic=False), persistent=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        frames = waveforms.unfold(1, FRAME, HOP)
        frames = frames - frames.mean(dim=2, keepdim=True)
        before = torch.cat([frames[:, :, :1], frames[:, :, :-1]], dim=2)
        spectrum = torch.fft.rfft((frames - PREEMPHASIS * before) * self.window, n=N_FFT).abs().square()
        return ((spectrum @ self.bands).clamp(min=FLOOR).log() - MEAN) / SPREAD


class AST(Pretrained):
    """The Audio Spectrogram Transformer, base (Gong et al. 2021), trained on AudioSet.

    All of it trains, as with its authors. Its positions are those of ten seconds; of clips with fewer frames they are
    the middle ones, of longer clips they are interpolated, as its authors do.

    Input: float32 [batch, 1, samples], at least 2800 samples; output: float32 [batch, n_classes].
    """

    address = "https://huggingface.co/MIT/ast-finetuned-audioset-10-10-0.4593/resolve/main/model.safetensors"
    sizes: ClassVar[dict[str, Any]] = {}
    """What of transformers' `ASTConfig` is not as published."""

    def __init__(self, n_classes: int, input_shape: tuple[int, int]) -> None:
        super().__init__()
        if input_shape[0] != 1 or input_shape[1] < FEWEST_SAMPLES:
            raise UserError(
                f"architecture {type(self).__name__!r} hears at least {FEWEST_SAMPLES} samples, not {input_shape}: "
                "give pipeline=waveform and longer clips"
            )
        self.features = LogMel()
        encoder: Any = self._network(1 + (input_shape[1] - FRAME) // HOP)  # torch's types know no layers of its own
        self.encoder = encoder
        width = encoder.config.hidden_size
        self.projection = nn.LayerNorm(width, eps=encoder.config.layer_norm_eps)
        self.head = nn.Linear(width, n_classes)

    def penultimate(self, features: Tensor) -> Tensor:
        """[batch, 1, samples] → [batch, 768]: the mean of the tokens of class and distillation, normalised."""
        states = self.encoder.embeddings(self.features(features.squeeze(1)))
        for layer in self.encoder.layers:
            states = layer(states)
        return self.projection(self.encoder.layernorm(states)[:, :2].mean(dim=1))

    def last_block(self) -> list[nn.Module]:
        """The last transformer layer, the norms behind it and the head."""
        return [self.encoder.layers[-1], self.encoder.layernorm, self.projection, self.head]

    @classmethod
    def file_name(cls) -> str:
        """That of the repository, in which every file of weights is called model.safetensors."""
        repository, inside, _ = cls.address.partition("/resolve/")
        return f"{repository.rpartition('/')[2]}.safetensors" if inside else super().file_name()

    @classmethod
    def weights(cls) -> Path:
        """See `Pretrained.weights`. Raises `UserError` where transformers is missing, before anything is downloaded."""
        _transformers()
        return super().weights()

    def fill(self, path: Path) -> None:
        """Put a file's weights into the encoder, with the positions that its clips have."""
        package = _transformers()
        package.utils.logging.disable_progress_bar()
        kept = {name: value for name, value in load_file(path).items() if not name.startswith("classifier.")}
        # Its reader knows the older names of weights that the published file has.
        published, found = package.ASTModel.from_pretrained(
            None, config=_config(self.sizes), state_dict=kept, output_loading_info=True
        )
        if found["missing_keys"]:
            raise ValueError(f"it lacks {min(found['missing_keys'])!r}")
        state = published.state_dict()
        (name,) = (name for name in state if name.endswith("position_embeddings"))
        state[name] = _positions_of(state[name], self.encoder.embeddings.position_embeddings.shape[1])
        self.encoder.load_state_dict(state)

    def _network(self, n_frames: int) -> nn.Module:
        return _transformers().ASTModel(_config({**self.sizes, "max_length": n_frames}))


def _transformers() -> Any:
    """The package. Raises `UserError` where it cannot be imported."""
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            f"architecture='ast' needs transformers ({one_line(error)}): run "
            "`python -m pip install -r requirements-pretrained.txt`"
        ) from None
    return transformers


def _config(sizes: dict[str, Any]) -> Any:
    return _transformers().ASTConfig(attn_implementation="sdpa", **sizes)


def _positions_of(published: Tensor, n_tokens: int) -> Tensor:
    """Positions [1, tokens, width] for other than the published number of frames; the first two are of no patch."""
    grid = published[:, 2:].unflatten(1, (ROWS, -1)).permute(0, 3, 1, 2)
    had, wanted = grid.shape[3], (n_tokens - 2) // ROWS
    if wanted <= had:
        first = had // 2 - wanted // 2
        grid = grid[..., first : first + wanted]
    else:
        grid = functional.interpolate(grid, size=(ROWS, wanted), mode="bilinear")
    return torch.cat([published[:, :2], grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
