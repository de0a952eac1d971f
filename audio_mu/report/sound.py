"""The recordings that a report plays."""

from __future__ import annotations

import os
from collections.abc import Sequence

from audio_mu.config import DataParameters
from audio_mu.data.audio import SAMPLE_RATE, BadRecording, read_clip
from audio_mu.data.catalog import recording_below
from audio_mu.data.datasets import root_at_hand
from audio_mu.data.segments import parted
from audio_mu.errors import UserError
from audio_mu.report.html import Clip, as_wav

AUDIO_VARIABLE = "AUDIO_MU_REPORT_AUDIO"  # how many recordings a report may hold; 0: none
DEFAULT_AUDIO = 60


def sound_of(data: DataParameters, recorded_folder: str, clips: Sequence[Clip]) -> dict[str, bytes]:
    """The first of these recordings as the network hears them, as WAV, where their folder is at hand.

    The store says which they are, and whoever writes it could name any file of the reader's: a recording counts where
    it lies below the data set's folder, as its catalog finds them, and its file holds what was measured.
    """
    text = os.environ.get(AUDIO_VARIABLE, str(DEFAULT_AUDIO))
    if not text.isdecimal():
        raise UserError(f"{AUDIO_VARIABLE}={text!r} is not allowed: give how many recordings a report may hold, or 0")
    root = root_at_hand(data, recorded_folder) if int(text) else None
    if root is None:
        return {}
    found: dict[str, bytes] = {}
    for clip in clips[: int(text)]:
        if (file := recording_below(root, clip.clip_id)) is None:
            continue
        try:
            prepared = read_clip(file, data.clip_samples, parted(clip.clip_id)[1], whole=False)
        except BadRecording:  # moved or deleted since: the report is made without it
            continue
        if prepared.constant or not clip.hashes.isdisjoint((prepared.hash, prepared.source_hash)):
            found[clip.clip_id] = as_wav(prepared.waveform, SAMPLE_RATE)
    return found
