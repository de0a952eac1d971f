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
import soundfile

from audio_mu.data import synthetic
from audio_mu.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two speakers, two takes; read only."""
    return synthetic.generate(tmp_path_factory.mktemp("digits") / "data", n_speakers=2, n_takes=2)


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


def test_noise_is_as_loud_as_drawn() -> None:
    """Would catch a signal-to-noise ratio in the wrong unit, and a word at another place or level than drawn."""
    tone = np.rint(20_000 * np.sin(2 * np.pi * 441 * np.arange(1, 11_025) / 22_050)).astype("<i2")
    take = synthetic.Take(pitch=50, rate=170, peak_db=-6.0, position=0.5, snr_db=20.0, noise_colour=0.5, noise_seed=1)
    clip = synthetic._record(tone.tobytes(), take) / 32768
    noise, middle = clip[:3900], clip[4100:11900]
    sine = np.sin(2 * np.pi * 441 * np.arange(7800) / 16_000)
    cosine = np.cos(2 * np.pi * 441 * np.arange(7800) / 16_000)
    amplitude = 2 * np.hypot(middle @ sine, middle @ cosine) / 7800
    assert amplitude == pytest.approx(0.501, rel=0.02)
    assert 10 * np.log10(amplitude**2 / 2 / np.mean(noise**2)) == pytest.approx(20, abs=0.5)


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
