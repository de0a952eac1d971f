"""SyntheticDigits: the folder's layout, its sameness from process to process, and what happens to half a folder."""

import hashlib
import json
import os
import subprocess
import sys
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import espeakng_loader
import numpy as np
import pytest
import scipy.signal
import soundfile
import torch

from audio_mu.config import Config
from audio_mu.data import synthetic
from audio_mu.data.clips import load_clips
from audio_mu.data.espeak import find_espeak
from audio_mu.data.splits import split_clips
from audio_mu.errors import UserError
from audio_mu.models.vggish import VGGish
from audio_mu.requests.request import resolve_request
from audio_mu.seeding import seeded
from audio_mu.training import Examples, OptimizerSettings, predict, train_from_scratch

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two speakers, two takes; read only."""
    return synthetic.generate(tmp_path_factory.mktemp("digits") / "data", n_speakers=2, n_takes=2)


@pytest.fixture(scope="module")
def digits_of_ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten speakers, three takes; read only."""
    return synthetic.generate(tmp_path_factory.mktemp("digits") / "ten", n_speakers=10, n_takes=3)


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def start_generation(root: Path, **environment: str) -> "subprocess.Popen[bytes]":
    code = (
        "import sys; from pathlib import Path; from audio_mu.data import synthetic; "
        "synthetic.generate(Path(sys.argv[1]), n_speakers=2, n_takes=1)"
    )
    settings = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    return subprocess.Popen([sys.executable, "-c", code, str(root)], env=settings)


@pytest.mark.slow
def test_fresh_processes_write_the_same_bytes(tmp_path: Path) -> None:
    """Would catch noise from global state, and a hash order, a locale or other voice data that leaks in."""
    first = start_generation(tmp_path / "first", PYTHONHASHSEED="1", LC_ALL="C")
    second = start_generation(tmp_path / "second", PYTHONHASHSEED="2", ESPEAK_DATA_PATH=str(tmp_path))
    assert (first.wait(60), second.wait(60)) == (0, 0)
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_fewer_speakers_and_takes_give_a_subset(digits: Path, tmp_path: Path) -> None:
    """Would catch eSpeak NG's state carried from one speaker, or from a later take, into another clip."""
    small = synthetic.generate(tmp_path / "small", n_speakers=1, n_takes=1)
    expected = {name: data for name, data in contents(digits).items() if name.endswith("_01_0.wav")}
    assert {name: data for name, data in contents(small).items() if name.endswith(".wav")} == expected


def test_layout_and_format(digits: Path) -> None:
    """Would catch names that AudioMNIST's readers do not find, another rate, width or length, silence, clipping."""
    names = {f"{s}/{d}_{s}_{t}.wav" for s in ("01", "02") for d in range(10) for t in range(2)}
    assert set(contents(digits)) == names | {"audioMNIST_meta.txt", "generation.json"}
    for name in names:
        with wave.open(str(digits / name)) as clip:
            parameters = (clip.getnchannels(), clip.getsampwidth(), clip.getframerate(), clip.getnframes())
            samples = np.frombuffer(clip.readframes(16_000), dtype="<i2").astype(float)
        assert parameters == (1, 2, 16_000, 16_000)
        assert 10 ** (-12 / 20) < np.abs(samples).max() / 32768 < 1


def test_speakers_and_manifest_are_described(digits: Path) -> None:
    """Would catch metadata for other speakers than those of the folders, and a manifest with wrong counts."""
    attributes = json.loads((digits / "audioMNIST_meta.txt").read_text(encoding="utf-8"))
    assert [attributes[s]["gender"] for s in ("01", "02")] == ["female", "male"]
    assert [attributes[s]["voice"] for s in ("01", "02")] == ["gmw/en-US+f1", "gmw/en-US+m1"]
    assert {attributes[s]["age"] for s in attributes} == {"synthetic"}
    manifest = json.loads((digits / "generation.json").read_text(encoding="utf-8"))
    audio = b"".join(data for name, data in sorted(contents(digits).items()) if name.endswith(".wav"))
    assert manifest == {
        "dataset": "SyntheticDigits",
        "version": synthetic.VERSION,
        "speakers": 2,
        "takes": 2,
        "clips": 40,
        "sha256": hashlib.sha256(audio).hexdigest(),
    }
    assert digits.stat().st_mode & 0o777 == digits.parent.joinpath("data", "01").stat().st_mode & 0o777


def test_no_two_clips_are_identical(digits: Path) -> None:
    """Would catch takes or voices that do not differ; noise alone must not make the difference (correlation)."""
    clips = np.stack([soundfile.read(path)[0] for path in sorted(digits.glob("*/*.wav"))])
    assert len({clip.tobytes() for clip in clips}) == 40
    spectra = np.abs(np.fft.rfft(clips, axis=1))
    assert np.triu(np.corrcoef(spectra), 1).max() < 0.97


def test_no_voice_comes_twice_and_all_exist() -> None:
    """Would catch two speakers with one voice, and a voice that eSpeak NG lacks (it would not say so itself)."""
    voices = synthetic.speakers(synthetic.MAX_SPEAKERS)
    assert len({speaker.voice for speaker in voices}) == 80
    assert sum(speaker.gender == "female" for speaker in voices[:40]) == 20
    data = Path(espeakng_loader.get_data_path())
    for speaker in voices:
        language, variant = speaker.voice.split("+")
        assert (data / "lang" / language).is_file()
        declared = (data / "voices" / "!v" / variant).read_text(encoding="utf-8")
        assert f"gender {speaker.gender}" in declared


def test_the_background_is_another_digit_at_a_loudness_of_its_own() -> None:
    """Would catch a background that says the label's digit, or always the same, and one that is never the louder."""
    keys = [(speaker, digit, take) for speaker in range(1, 31) for digit in range(10) for take in range(3)]
    takes = [synthetic.draw_take(*key) for key in keys]
    assert [take.word.digit for take in takes] == [digit for _, digit, _ in keys]
    pairs = {(take.word.digit, take.other.digit) for take in takes}
    assert pairs == {(word, other) for word in range(10) for other in range(10) if word != other}
    ratios = np.array([take.snr_db for take in takes])
    assert (ratios.min(), ratios.max()) == (pytest.approx(-5, abs=0.2), pytest.approx(10, abs=0.2))
    assert 0.25 < np.mean(ratios < 0) < 0.42
    assert len({(take.other.pitch, take.other.rate, take.other.position) for take in takes}) == len(takes)
    assert np.mean([take.other.pitch == take.word.pitch for take in takes]) < 0.1


def test_a_clip_is_two_digits_of_its_voice_and_noise(digits: Path) -> None:
    """Would catch another voice's background, digits in another file, and a ratio or noise in the wrong unit."""
    takes = [synthetic.draw_take(2, digit, 0) for digit in range(10)]
    said = [part.utterance for take in takes for part in (take.word, take.other)]
    spoken = find_espeak().speak("gmw/en-US+m1", 2, said)
    for digit, take in enumerate(takes):
        clip = soundfile.read(digits / "02" / f"{digit}_02_0.wav")[0]
        parts = [placed(spoken[2 * digit], take.word.position), placed(spoken[2 * digit + 1], take.other.position)]
        weights = np.linalg.lstsq(np.stack(parts, axis=1), clip, rcond=None)[0]
        word, other = weights[:, None] * np.stack(parts)
        noise = clip - word - other
        background = np.sum(other**2) + np.sum(noise**2)
        assert np.sum(noise**2) / background == pytest.approx(0.09, abs=0.01)
        assert 10 * np.log10(np.sum(word**2) / background) == pytest.approx(take.snr_db, abs=0.4)
        assert 20 * np.log10(np.abs(clip).max()) == pytest.approx(take.peak_db, abs=0.01)


def placed(speech: bytes, position: float) -> np.ndarray:
    """Speech at 22,050 Hz at 16 kHz in a clip of silence: resampled by its spectrum, not by a filter."""
    samples = np.trim_zeros(np.frombuffer(speech, dtype="<i2")).astype(float)
    length = -(-len(samples) * 320 // 441)
    padded = np.pad(samples, (0, 441 * 60 - len(samples)))
    clip = np.zeros(16_000)
    start = round(position * (16_000 - length))
    clip[start : start + length] = scipy.signal.resample(padded, 320 * 60)[:length]
    return clip


def small_network(seed: int) -> torch.nn.Module:
    with seeded(seed):
        return VGGish(10, (32, 63), blocks=((8,), (16,), (32,)), hidden=128)


@pytest.mark.slow
def test_the_original_knows_by_heart_what_naive_does_not(digits_of_ten: Path) -> None:
    """Would catch a data set in which nothing can be forgotten: a network without the recordings knows them as well."""
    config = Config.from_text({"data_dir": str(digits_of_ten), "forget_percentage": "30"})
    clips = load_clips(config.data)
    split = split_clips(config.data.split, config.data.split_seed, clips)
    request = resolve_request(config.request, clips, split)
    right = {}
    for name, rows in (("original", split.train), ("naive", request.remain)):
        network = train_from_scratch(
            small_network, Examples(clips.features, clips.labels, torch.from_numpy(rows)),
            OptimizerSettings("adam", 0.001), epochs=30, batch_size=16, seed=40,
        )  # fmt: skip
        answers = predict(network, clips.features, request.forget).argmax(axis=1)
        right[name] = float((answers == clips.labels.numpy()[request.forget]).mean())
    assert right["original"] > 0.9
    assert right["naive"] < right["original"] - 0.2


def test_existing_folder_is_reused(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a second generation, which costs seconds and needs eSpeak NG, where the folder is complete."""
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    before = contents(digits)
    assert synthetic.generate(digits, n_speakers=2, n_takes=2) == digits
    assert contents(digits) == before


def test_folder_of_a_killed_run_is_not_taken_for_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch clips written straight into the final folder, and a failed run that leaves its half behind."""

    def break_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "_write_descriptions", break_off)
        with pytest.raises(KeyboardInterrupt):
            synthetic.generate(tmp_path / "data", n_speakers=1, n_takes=1)
    assert [path.name for path in tmp_path.iterdir()] == [".data.lock"]
    (tmp_path / "data").mkdir()  # an empty folder that a user made
    root = synthetic.generate(tmp_path / "data", n_speakers=1, n_takes=1)
    assert len(list(root.glob("*/*.wav"))) == 10
    assert (root / "01" / "0_01_0.wav").stat().st_size == 44 + 2 * 16_000


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "generation.json").unlink(), "no readable generation.json"),
        (lambda root: (root / "generation.json").write_text("{"), "no readable generation.json"),
        (lambda root: (root / "01" / "3_01_0.wav").unlink(), "9 of 10 clips"),
        (lambda root: (root / "generation.json").write_text('{"version": 0}'), "was generated with"),
        (lambda root: os.truncate(root / "01" / "3_01_0.wav", 9_000), "other clips than were generated"),
    ],
    ids=["no manifest", "broken manifest", "lost clip", "other version", "truncated clip"],
)
def test_incomplete_folder_is_refused_or_rebuilt(tmp_path: Path, spoil, message: str) -> None:
    """Would catch a folder that is used though clips are missing or altered, and a user's that is overwritten."""
    root = synthetic.generate(tmp_path / "data", n_speakers=1, n_takes=1)
    whole = contents(root)
    spoil(root)
    before = contents(root)
    with pytest.raises(UserError, match=message):
        synthetic.generate(root, n_speakers=1, n_takes=1)
    assert contents(root) == before
    synthetic.generate(root, n_speakers=1, n_takes=1, rebuild=True)
    assert contents(root) == whole


def test_two_generations_at_once_leave_one_folder(tmp_path: Path) -> None:
    """Would catch two processes that mix their files, and a loser of the race that fails or leaves its folder."""
    with ThreadPoolExecutor(4) as pool:
        roots = list(pool.map(lambda _: synthetic.generate(tmp_path / "data", 1, 1), range(4)))
    assert set(roots) == {tmp_path / "data"}
    assert {path.name for path in tmp_path.iterdir()} == {"data", ".data.lock"}
    assert len(list((tmp_path / "data").rglob("*.wav"))) == 10


def test_missing_package_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch an ImportError in place of the way out, and an empty folder left behind."""
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(UserError, match=r"pip install -r requirements\.txt.*data_dir"):
        synthetic.generate(tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_library_that_does_not_load_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch an OSError from the speaking process (wrong architecture, damaged file) that gets lost."""
    damaged = tmp_path / "libespeak-ng.so"
    damaged.write_bytes(b"not a library")
    monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: str(damaged))
    with pytest.raises(UserError, match=r"libespeak-ng\.so.*pip install -r requirements\.txt"):
        synthetic.generate(tmp_path / "data", n_speakers=1, n_takes=1)
    assert {path.name for path in tmp_path.iterdir()} == {damaged.name, ".data.lock"}


@pytest.mark.parametrize("counts", [{"n_speakers": 0}, {"n_speakers": 81}, {"n_takes": 0}])
def test_counts_out_of_range_are_refused(tmp_path: Path, counts: dict[str, int]) -> None:
    """Would catch an empty data set, and a voice that comes again as another speaker."""
    with pytest.raises(UserError, match=r"n_(speakers|takes)=\d+ is out of range"):
        synthetic.generate(tmp_path / "data", **counts)


def test_progress_counts_the_speakers(tmp_path: Path) -> None:
    """Would catch a progress bar that is never advanced, or of another length than the work."""
    seen: list[object] = []

    def progress(items, total: int, description: str):
        for item in items:
            seen.append((total, description))
            yield item

    synthetic.generate(tmp_path / "data", n_speakers=2, n_takes=1, progress=progress)
    assert seen == [(2, "SyntheticDigits: speakers")] * 2


def test_version_is_in_the_default_folder(tmp_path: Path) -> None:
    """Would catch an older version's folder being met by a newer one's generation."""
    assert synthetic.default_root(tmp_path) == tmp_path / f"SyntheticDigits-v{synthetic.VERSION}"
