"""SyntheticDigits: the words zero to nine spoken by eSpeak NG, written in AudioMNIST's layout.

While a voice says the digit of the label it says another digit in the background, now softer, now louder than the
first. Which of the two is meant cannot always be heard, so that a network knows some recordings by heart alone: a
network that was never trained on them gets these wrong, and forgetting can be seen.

The data set needs no download and no licence of recorded speakers, and is the same to the last bit wherever the
same pinned packages run. Speakers differ in accent and voice, takes in pitch, rate, level, position and background.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from audio_mu.data.audio import SAMPLE_RATE
from audio_mu.data.espeak import RATE, Espeak, Utterance, find_espeak
from audio_mu.errors import UserError
from audio_mu.progress import say
from audio_mu.system.cores import cores_at_hand
from audio_mu.system.writing import atomic_folder, locked

VERSION = 2
"""Raised with every change that alters a byte of the data set; part of the folder's name and of the manifest."""

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLIP_SAMPLES = 16_000
MANIFEST = "generation.json"
METADATA = "audioMNIST_meta.txt"

_ACCENTS = {
    "en-US": "American",
    "en": "British",
    "en-GB-scotland": "Scottish",
    "en-029": "Caribbean",
    "en-GB-x-rp": "Received Pronunciation",
    "en-US-nyc": "New York City",
    "en-GB-x-gbclan": "Lancastrian",
    "en-GB-x-gbcwmd": "West Midlands",
}
# The numbers of variants have no factor in common with the eight accents, so that counting both up at once meets
# every pair before one comes again: 40 women and 56 men.
_VARIANTS = {"female": ("f1", "f2", "f3", "f4", "f5"), "male": ("m1", "m2", "m3", "m4", "m5", "m6", "m7")}
MAX_SPEAKERS = 80
MAX_TAKES = 100

_LOUDEST_PEAK_DB = -3.0
_NOISE = 0.09
"""The noise's share of the background's energy; the other digit has the rest."""
_SNR_DB = (-5.0, 10.0)

Progress = Callable[[Iterable, int, str], Iterable]


@dataclass(frozen=True)
class Speaker:
    """One voice: `number` counts from 1; `voice` is eSpeak NG's name of it."""

    number: int
    voice: str
    accent: str
    gender: str

    @property
    def folder(self) -> str:
        """AudioMNIST's two digits for the speaker."""
        return f"{self.number:02d}"


@dataclass(frozen=True)
class Spoken:
    """A digit as it is said in a clip.

    `pitch` is on eSpeak NG's scale of 0 to 100 (50: the voice's own), `rate` in words a minute, `position` the share
    (0 to 1) of the silence that comes before the digit.
    """

    digit: int
    pitch: int
    rate: int
    position: float

    @property
    def utterance(self) -> Utterance:
        """What the voice has to say."""
        return Utterance(WORDS[self.digit], self.pitch, self.rate)


@dataclass(frozen=True)
class Take:
    """The settings of a recording, which differ between the recordings of a word.

    `word` is the digit of the label, `other` the one in the background. `peak_db` is the clip's peak below full scale,
    `snr_db` the energy of the word over that of the background, `noise_colour` the pole of the noise's low-pass
    filter (0: white), and `noise_seed` seeds the noise.
    """

    word: Spoken
    other: Spoken
    peak_db: float
    snr_db: float
    noise_colour: float
    noise_seed: int


def default_root(cache: Path) -> Path:
    """The folder of this version of the data set below the folder `cache`."""
    return cache / f"SyntheticDigits-v{VERSION}"


def speakers(n_speakers: int) -> list[Speaker]:
    """The first `n_speakers` speakers, women and men in turn, no voice twice."""
    return [_speaker(number) for number in range(1, n_speakers + 1)]


def _speaker(number: int) -> Speaker:
    gender = ("female", "male")[(number - 1) % 2]
    turn = (number - 1) // 2
    language = list(_ACCENTS)[turn % len(_ACCENTS)]
    variant = _VARIANTS[gender][turn % len(_VARIANTS[gender])]
    return Speaker(number, f"gmw/{language}+{variant}", _ACCENTS[language], gender)


def draw_take(speaker: int, digit: int, take: int) -> Take:
    """The settings of one clip: a function of its three numbers alone, whatever else is generated."""
    generator = np.random.default_rng([VERSION, speaker, digit, take])
    other = (digit + int(generator.integers(1, len(WORDS)))) % len(WORDS)
    return Take(
        word=_draw_spoken(generator, digit, 0.35, 0.65),
        other=_draw_spoken(generator, other, 0.0, 1.0),
        peak_db=_LOUDEST_PEAK_DB - float(generator.uniform(0, 6)),
        snr_db=float(generator.uniform(*_SNR_DB)),
        noise_colour=float(generator.uniform(0, 0.9)),
        noise_seed=int(generator.integers(0, 2**63)),
    )


def _draw_spoken(generator: np.random.Generator, digit: int, earliest: float, latest: float) -> Spoken:
    return Spoken(
        digit=digit,
        pitch=int(generator.integers(38, 63)),
        rate=int(generator.integers(150, 201)),
        position=float(generator.uniform(earliest, latest)),
    )


def generate(
    root: Path, n_speakers: int = 25, n_takes: int = 3, progress: Progress | None = None, rebuild: bool = False
) -> Path:
    """Write the data set to the folder `root`, unless it is there already, and return `root`.

    `root` gets `NN/D_NN_T.wav` (speaker 01.., digit 0 to 9, take 0..; mono, 16 kHz, 16 bit PCM, 16,000 samples),
    `audioMNIST_meta.txt` (JSON: the speakers' attributes) and `generation.json` (JSON: version, counts, and the
    SHA-256 of the concatenated files). Clips are the same to the last bit in every process and whatever the
    counts: fewer speakers or takes give a subset. The folder appears complete or not at all: it is made beside
    `root` and renamed; of several processes one makes it and the others wait. With `rebuild` a folder that differs
    in a bit from the generated folder is made anew.

    `progress(iterable, total, description)` may wrap the iteration over speakers to show how far it is.

    Raises UserError when a count is out of range, when eSpeak NG cannot be loaded, and, without `rebuild`, when
    `root` holds something else than this data set, complete.
    """

    def is_there() -> bool:
        try:
            return _is_complete(root, n_speakers, n_takes)
        except UserError as wrong:
            if not rebuild:
                raise
            say(f"made anew: {wrong}")
            return False

    root = Path(root)
    _check_count("n_speakers", n_speakers, MAX_SPEAKERS)
    _check_count("n_takes", n_takes, MAX_TAKES)
    if is_there():
        return root
    espeak = find_espeak()
    with locked(root):
        if not is_there():
            with atomic_folder(root) as partial:
                _write_clips(partial, speakers(n_speakers), n_takes, espeak, progress)
                _write_descriptions(partial, n_speakers, n_takes)
    return root


def _check_count(name: str, value: int, largest: int) -> None:
    if not 1 <= value <= largest:
        raise UserError(f"{name}={value} is out of range: SyntheticDigits takes 1 to {largest}")


def _is_complete(root: Path, n_speakers: int, n_takes: int) -> bool:
    """Whether `root` holds the data set; False: nothing is there yet. Raises UserError at anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    way_out = "move or delete it to have SyntheticDigits made again, or choose another folder"
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{root} is not a SyntheticDigits folder (no readable {MANIFEST}): {way_out}") from None
    expected = _counts(n_speakers, n_takes)
    found = {key: manifest.get(key) for key in expected} if isinstance(manifest, dict) else manifest
    if found != expected:
        raise UserError(f"{root} was generated with {found}, asked for is {expected}: {way_out}")
    n_files = sum(1 for _ in root.glob("[0-9][0-9]/*.wav"))
    if n_files != expected["clips"]:
        raise UserError(f"{root} holds {n_files} of {expected['clips']} clips: {way_out}")
    if _sha256(root) != manifest.get("sha256"):
        raise UserError(f"{root} holds other clips than were generated: {way_out}")
    return True


def _sha256(folder: Path) -> str:
    """SHA-256 of all clips, one after the other."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("[0-9][0-9]/*.wav")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _counts(n_speakers: int, n_takes: int) -> dict[str, int]:
    return {
        "version": VERSION,
        "speakers": n_speakers,
        "takes": n_takes,
        "clips": n_speakers * n_takes * len(WORDS),
    }


def _write_clips(folder: Path, voices: list[Speaker], n_takes: int, espeak: Espeak, progress: Progress | None) -> None:
    def write(speaker: Speaker) -> None:
        _write_speaker(folder, speaker, n_takes, espeak)

    executor = ThreadPoolExecutor(max_workers=min(len(voices), cores_at_hand()))
    try:
        finished: Iterable = executor.map(write, voices)
        if progress is not None:
            finished = progress(finished, len(voices), "SyntheticDigits: speakers")
        for _ in finished:
            pass
    finally:
        executor.shutdown(cancel_futures=True)


def _write_speaker(folder: Path, speaker: Speaker, n_takes: int, espeak: Espeak) -> None:
    keys = [(digit, take) for take in range(n_takes) for digit in range(len(WORDS))]
    takes = [draw_take(speaker.number, digit, take) for digit, take in keys]
    words = [said.utterance for settings in takes for said in (settings.word, settings.other)]
    spoken = espeak.speak(speaker.voice, speaker.number, words)
    (folder / speaker.folder).mkdir()
    for (digit, take), settings, word, other in zip(keys, takes, spoken[::2], spoken[1::2], strict=True):
        # Through memory: a full disk is an OSError here, not soundfile's own error.
        content = io.BytesIO()
        soundfile.write(content, _record(word, other, settings), SAMPLE_RATE, subtype="PCM_16", format="WAV")
        (folder / speaker.folder / f"{digit}_{speaker.folder}_{take}.wav").write_bytes(content.getvalue())


def _record(word: bytes, other: bytes, take: Take) -> np.ndarray:
    """One clip, int16 [16,000], from eSpeak NG's 16 bit samples at 22,050 Hz of the two digits."""
    from scipy.signal import lfilter

    white = np.random.default_rng(take.noise_seed).standard_normal(CLIP_SAMPLES)
    noise = _of_energy(_NOISE, lfilter([1.0], [1.0, -take.noise_colour], white))
    background = _of_energy(1.0, _of_energy(1 - _NOISE, _placed(other, take.other.position)) + noise)
    clip = _of_energy(10 ** (take.snr_db / 10), _placed(word, take.word.position)) + background
    clip *= 10 ** (take.peak_db / 20) / np.abs(clip).max()
    return np.rint(clip * 32767).astype(np.int16)


def _placed(speech: bytes, position: float) -> np.ndarray:
    """A clip [16,000] of silence and, in it, the speech at 16 kHz."""
    from scipy.signal import resample_poly

    spoken = np.trim_zeros(np.frombuffer(speech, dtype="<i2")).astype(np.float64)
    spoken = resample_poly(spoken, SAMPLE_RATE // 50, RATE // 50)[:CLIP_SAMPLES]
    clip = np.zeros(CLIP_SAMPLES)
    start = round(position * (CLIP_SAMPLES - len(spoken)))
    clip[start : start + len(spoken)] = spoken
    return clip


def _of_energy(energy: float, clip: np.ndarray) -> np.ndarray:
    return clip * np.sqrt(energy / np.sum(clip**2))


def _write_descriptions(folder: Path, n_speakers: int, n_takes: int) -> None:
    attributes = {
        speaker.folder: {
            "accent": speaker.accent,
            "age": "synthetic",
            "gender": speaker.gender,
            "native speaker": "synthetic",
            "origin": "eSpeak NG",
            "recordingroom": "none",
            "voice": speaker.voice,
        }
        for speaker in speakers(n_speakers)
    }
    _write_json(folder / METADATA, attributes)
    manifest = {"dataset": "SyntheticDigits", **_counts(n_speakers, n_takes), "sha256": _sha256(folder)}
    _write_json(folder / MANIFEST, manifest)


def _write_json(path: Path, content: dict) -> None:
    path.write_bytes((json.dumps(content, indent=2) + "\n").encode())
