"""eSpeak NG: utterances that do not depend on time or place."""

import time
from dataclasses import replace
from pathlib import Path

import espeakng_loader

from audio_mu.data.espeak import Utterance, find_espeak


def test_breathy_voice_is_the_same_at_another_time() -> None:
    """Would catch an unseeded eSpeak NG: breath is noise, which it seeds with the second of the clock."""
    utterances = [Utterance(word, 50, 170) for word in ("zero", "one", "seven", "nine")]
    first = find_espeak().speak("gmw/en+f2", 3, utterances)
    time.sleep(1.1)
    assert find_espeak().speak("gmw/en+f2", 3, utterances) == first
    assert len(set(first)) == len(first)


def test_long_installation_path_speaks_the_same(tmp_path: Path) -> None:
    """Would catch the voice data being passed by its full path, which eSpeak NG cuts at 160 characters."""
    folder = tmp_path / ("a" * 100) / ("b" * 100)
    folder.mkdir(parents=True)
    (folder / "espeak-ng-data").symlink_to(espeakng_loader.get_data_path(), target_is_directory=True)
    near, utterances = find_espeak(), [Utterance("seven", 50, 170)]
    far = replace(near, voice_data=folder / "espeak-ng-data")
    assert far.speak("gmw/en-US+f1", 1, utterances) == near.speak("gmw/en-US+f1", 1, utterances)
