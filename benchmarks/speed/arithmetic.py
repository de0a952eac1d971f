"""Sections of arithmetic: epochs of the three networks, evaluation, cost a clip as the data grow."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial

from benchmarks.speed.measuring import N_TRAIN, Context, matrix_rate, pairs, side_by_side, two_processes
from benchmarks.speed.rows import Row, ratio_row, verdict
from benchmarks.speed.ways import our_epoch, our_evaluation, study_epoch, study_evaluation

MEGAFLOPS = {"VGGish": 115.8, "CCT": 312.8, "ViT": 1_393.5}
"""Useful operations of one clip trained, forward and backward, as torch's counter has them (a multiply-add is two)."""

STUDY_EPOCH = {"VGGish": 4.95, "CCT": 6.55, "ViT": 25.0}
STUDY_EVALUATION = 1.6
"""Seconds that the study's own code took for 2,400 clips on both cores of such a machine."""


def vggish(context: Context) -> list[Row]:
    """VGGish with one thread and with all."""
    return _epochs(context, "VGGish", N_TRAIN, 1.6, sorted({1, context.threads}))


def cct(context: Context) -> list[Row]:
    """CCT with all threads."""
    return _epochs(context, "CCT", N_TRAIN // 2, 1.3, [context.threads])


def vit(context: Context) -> list[Row]:
    """ViT with all threads."""
    return _epochs(context, "ViT", N_TRAIN // 4, 1.1, [context.threads])


def _epochs(context: Context, architecture: str, n: int, least: float, threads: Sequence[int]) -> list[Row]:
    """A training epoch of `n` clips, and its useful operations a second beside a matrix product's."""
    section, rows = architecture.lower(), []
    for count in threads:
        baseline, ours = side_by_side(context.rounds, study_epoch, our_epoch, architecture, n, count)
        limit = statistics.median(matrix_rate(count) for _ in range(3))
        known = STUDY_EPOCH[architecture] * n / N_TRAIN if count > 1 else None
        what = f"{architecture} epoch of {n:,} clips{_thread_note(count)}"
        row = ratio_row(section, what, baseline, ours, least, known)
        rate = MEGAFLOPS[architecture] * n / row.ours / 1e3
        least_share = 0.62 if architecture == "VGGish" else 0.0
        rows += [
            row,
            Row(
                section, f"{architecture} epoch, useful rate beside a matrix product's{_thread_note(count)}", limit,
                rate, "GFLOP/s", rate / limit, f"at least {least_share:g}" if least_share else "shown",
                verdict(rate / limit >= least_share) if least_share else "",
            ),
        ]  # fmt: skip
    return rows


def _thread_note(threads: int) -> str:
    return f", {threads} thread{'' if threads == 1 else 's'}"


def evaluate(context: Context) -> list[Row]:
    """One evaluation pass over 2,400 clips: logits and their figures."""
    rows = []
    for threads in sorted({1, context.threads}):
        baseline, ours = side_by_side(context.rounds, study_evaluation, our_evaluation, "VGGish", N_TRAIN, threads)
        what, known = f"evaluation of 2,400 clips{_thread_note(threads)}", STUDY_EVALUATION if threads > 1 else None
        rows.append(ratio_row("evaluate", what, baseline, ours, 1.5, known))
    return rows


def scaling(context: Context) -> list[Row]:
    """Seconds of an epoch from 1,000 to 16,000 clips: cost a clip at each size beside that at 1,000."""
    sizes = [1_000, 2_000, 4_000, 8_000, 16_000]
    per_clip = {}
    with two_processes() as (_, ours):
        for n in (sizes[0], *sizes):  # the first one warms up
            epoch = partial(our_epoch, "VGGish", n, context.threads)
            (taken,) = pairs(max(1, min(context.rounds, 8_000 // n)), lambda e=epoch: ours.submit(e).result())
            per_clip[n] = statistics.median(taken) / n
    first = per_clip[sizes[0]]
    return [
        Row(
            "scaling", f"VGGish epoch of {n:,} clips, per clip beside 1,000's", 1e3 * first, 1e3 * per_clip[n],
            "ms a clip", per_clip[n] / first, "at most 1.15", verdict(per_clip[n] <= 1.15 * first),
        )
        for n in sizes[1:]
    ]  # fmt: skip
