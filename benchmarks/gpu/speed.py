"""Seconds of an epoch of the three networks: `fit` as it is shipped and in other arithmetic, and the study's loop."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise

import torch

from audio_mu.audit.performance import performance
from audio_mu.models import AudioClassifier
from audio_mu.training import Examples, Objective, OptimizerSettings, cross_entropy, fit, predict
from benchmarks.gpu import data
from benchmarks.gpu.arithmetic import DEFAULT, SHIPPED, arithmetic
from benchmarks.gpu.measuring import ARCHITECTURES, BATCH, RATE, initialiser, seconds_of
from benchmarks.gpu.sampler import Sampler, peak_mb, reset_peak
from benchmarks.gpu.table import SKIPPED, Clock, Settings, Table
from tests import study_loop
from tests.study_loop import ClipList

MEGAFLOPS = {"VGGish": 115.8, "CCT": 312.8, "ViT": 1_393.5}
"""Useful operations of one clip trained, as in `benchmarks.speed.arithmetic`."""
WINDOW = 2.0  # seconds to measure each way for


class _Enough(Exception):
    """The window is over."""


def speed(settings: Settings, table: Table, clock: Clock) -> None:
    """The three networks, one after the other."""
    with Sampler(settings.on_gpu) as sampler:
        for architecture in ARCHITECTURES:
            if clock.left < 12 * min(1.0, settings.minutes / 6):
                table.add("speed", "epochs", SKIPPED, network=architecture, note="no time is left")
                continue
            n = settings.clips if settings.on_gpu else _few(settings.clips, architecture)
            Epochs(architecture, n, settings, table, sampler).measure()


def _few(n: int, architecture: str) -> int:
    """Clips that a CPU trains on in a bearable time."""
    return min(n, {"VGGish": 200, "CCT": 60, "ViT": 20}[architecture])


@dataclass(frozen=True)
class Epochs:
    """The measurements of one network on n clips."""

    architecture: str
    n: int
    settings: Settings
    table: Table
    sampler: Sampler

    @property
    def window(self) -> float:
        """Seconds to measure for; at least one epoch after the first, which is not counted."""
        return 0.1 if self.settings.quick else WINDOW

    def measure(self) -> None:
        """All ways of training, then an evaluation pass, beside the study's."""
        features, labels = data.clips(self.settings, self.n)
        device = self.settings.device
        examples = Examples(features.to(device), labels.to(device), torch.arange(self.n, device=device))
        ours = study = float("nan")
        kinds = (SHIPPED, "float32", DEFAULT, "TF32", "bf16") if self.settings.on_gpu else (SHIPPED,)
        for kind in kinds:
            with self._attempt(f"fit, {kind}"), arithmetic(kind) as objective:
                taken = self._row(f"fit, {kind}", lambda o=objective: self._fit(examples, o))
                ours = taken if kind == SHIPPED else ours
        if self.settings.on_gpu:
            with self._attempt("fit, as shipped, cudnn.benchmark"), _chosen_kernels():
                self._row("fit, as shipped, cudnn.benchmark", lambda: self._fit(examples, cross_entropy))
        with self._attempt("the study's loop"):
            clips = ClipList([clip.clone() for clip in features], labels.tolist())
            study = self._row("the study's loop", lambda: self._study(clips))
            self._add("", "epoch, the study's loop / fit, as shipped", study / ours, "times")
            self._evaluation(examples, clips)

    def _attempt(self, what: str) -> AbstractContextManager[None]:
        return self.table.attempt("speed", what, network=self.architecture)

    def _add(self, way: str, what: str, value: float, unit: str, note: str = "") -> None:
        self.table.add("speed", what, value, unit, network=self.architecture, method=way, note=note)

    def _row(self, way: str, epochs: Callable[[], list[float]]) -> float:
        """Rows of one way; returns the median of its epochs' seconds."""
        device = torch.device(self.settings.device)
        reset_peak(device)
        start = time.time()
        taken = epochs()
        middle = statistics.median(taken)
        note = f"{len(taken)} epochs, {min(taken):.3g} to {max(taken):.3g} s"
        busy = self.sampler.note(start)
        self._add(way, f"epoch of {self.n:,} clips", middle, "s", "; ".join(filter(None, (note, busy))))
        self._add(way, "clips a second", self.n / middle, "clips/s")
        if not self.settings.quick:  # which measures small networks
            self._add(way, "useful rate", MEGAFLOPS[self.architecture] * self.n / middle / 1e6, "TFLOP/s")
        if (peak := peak_mb(device)) is not None:
            self._add(way, "peak of GPU memory", peak, "MB")
        return middle

    def _network(self) -> AudioClassifier:
        return initialiser(self.architecture, small=self.settings.quick)(40).to(self.settings.device)

    def _fit(self, examples: Examples, objective: Objective) -> list[float]:
        """Seconds of each epoch after the first, until the window is over."""
        network = self._network()
        optimizer = OptimizerSettings("sgd", RATE).build(network.parameters())
        ends: list[float] = []

        def after_epoch(epoch: int, loss: float) -> None:  # `loss` has waited for the device
            ends.append(time.perf_counter())
            if len(ends) > 1 and ends[-1] - ends[0] > self.window:
                raise _Enough

        with suppress(_Enough):
            fit(
                network, examples, optimizer,
                epochs=1_000, batch_size=BATCH, seed=0, objective=objective, after_epoch=after_epoch,
            )  # fmt: skip
        return [end - begin for begin, end in pairwise(ends)]

    def _study(self, clips: ClipList) -> list[float]:
        network = study_loop.plain(self._network())
        optimizer = study_loop.optimizer_of(network)
        study_loop.train_epoch(network, clips.part(range(min(len(clips), 4 * BATCH))), optimizer)
        taken: list[float] = []
        while not taken or sum(taken) < self.window:
            taken += seconds_without_warm_up(lambda: study_loop.train_epoch(network, clips, optimizer))
        return taken

    def _evaluation(self, examples: Examples, clips: ClipList) -> None:
        """One pass over all clips: logits and their figures."""
        network = self._network()
        plain = study_loop.plain(network)
        labels = examples.labels.cpu().numpy()

        def ours() -> None:
            performance(predict(network, examples.features, examples.indices), labels)

        (taken,) = seconds_of(ours, self.settings.device)
        self._add("ours", f"evaluation of {self.n:,} clips", taken, "s")
        (taken,) = seconds_without_warm_up(lambda: study_loop.evaluate(plain, clips))
        self._add("the study's", f"evaluation of {self.n:,} clips", taken, "s")


def seconds_without_warm_up(work: Callable[[], object]) -> list[float]:
    """Wall seconds of one call that waits for the device itself."""
    start = time.perf_counter()
    work()
    return [time.perf_counter() - start]


@contextmanager
def _chosen_kernels() -> Iterator[None]:
    """CuDNN tries its kernels and takes the fastest, inside the block."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
