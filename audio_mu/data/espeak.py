"""eSpeak NG: utterances of one voice, spoken in a fresh process.

eSpeak NG keeps state that no call resets (noise, flutter and echo carry over from one word to the next, and past
`espeak_Terminate`). Every voice therefore speaks in a process of its own, in a fixed order. This file, run as a
script, is that process; it needs nothing beyond the standard library and `audio_mu.errors`.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from audio_mu.errors import UserError

RATE = 22_050
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Utterance:
    """A word, its pitch on eSpeak NG's scale of 0 to 100 (50: the voice's own), and its rate in words a minute."""

    text: str
    pitch: int
    rate: int


@dataclass(frozen=True)
class Espeak:
    """An installed eSpeak NG: its shared library and the folder of its voice data."""

    library: Path
    voice_data: Path

    def speak(self, voice: str, seed: int, utterances: list[Utterance]) -> list[bytes]:
        """Each utterance's 16 bit samples at 22,050 Hz, spoken one after the other in a fresh process.

        Raises `UserError` where eSpeak NG cannot be loaded or lacks the voice.
        """
        request = {
            "library": str(self.library),
            "data": self.voice_data.name,
            "voice": voice,
            "seed": seed,
            "utterances": [asdict(utterance) for utterance in utterances],
        }
        # -P and PYTHONPATH: this file runs by its path, so that nothing else of the package is imported, and finds
        # audio_mu though not its neighbours in place of standard modules. The working folder keeps the path of the
        # voice data short: eSpeak NG cuts paths at 160 characters and would then look elsewhere.
        finished = subprocess.run(
            [sys.executable, "-P", str(Path(__file__).resolve())],
            input=json.dumps(request).encode(),
            capture_output=True,
            cwd=self.voice_data.parent,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            check=False,
        )
        if finished.returncode != 0:
            lines = finished.stderr.decode(errors="replace").strip().splitlines()
            raise _missing(lines[-1] if lines else f"exit code {finished.returncode}")
        return list(_unpack(finished.stdout))


def find_espeak() -> Espeak:
    """The eSpeak NG that the package espeakng-loader brings. Raises `UserError` where it cannot be loaded."""
    try:
        import espeakng_loader

        library, voice_data = Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path())
    except (ImportError, RuntimeError) as error:
        raise _missing(str(error)) from error
    if not library.is_file():
        raise _missing(f"no file {library}")
    return Espeak(library.resolve(), voice_data.resolve())


def _missing(reason: str) -> UserError:
    return UserError(
        f"SyntheticDigits needs eSpeak NG from the package espeakng-loader, which cannot be loaded ({reason}): "
        "pip install -r requirements.txt, or give data_dir a folder that holds the data set already"
    )


def _unpack(stream: bytes) -> Iterator[bytes]:
    """The byte strings of a stream in which each comes after its length."""
    at = 0
    while at < len(stream):
        (length,) = _LENGTH.unpack_from(stream, at)
        at += _LENGTH.size + length
        yield stream[at - length : at]


class _Interface:
    """eSpeak NG's C interface (speak_lib.h), as far as it is needed."""

    _SYNCHRONOUS = 2
    _DO_NOT_EXIT = 0x8000
    _RATE, _PITCH = 1, 3
    _BY_CHARACTER = 1
    _UTF8 = 1

    def __init__(self, library: str, voice_data: str, voice: str, seed: int) -> None:
        self._library = ctypes.CDLL(library)
        self._chunks: list[bytes] = []
        # The callback must outlive every call into the library.
        callback_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback = callback_type(self._receive)
        rate = self._library.espeak_Initialize(self._SYNCHRONOUS, 0, voice_data.encode(), self._DO_NOT_EXIT)
        if rate != RATE:
            raise RuntimeError(f"eSpeak NG did not start with its voice data: {rate}")
        self._library.espeak_SetSynthCallback(self._callback)
        # An unknown variant after the plus sign would pass unnoticed as the accent's own voice.
        variant = Path(voice_data, "voices", "!v", voice.partition("+")[2])
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0 or not variant.is_file():
            raise RuntimeError(f"eSpeak NG has no voice {voice}")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))

    def _receive(self, samples: ctypes._Pointer[ctypes.c_short], n_samples: int, _events: int) -> int:
        if samples and n_samples > 0:
            self._chunks.append(ctypes.string_at(samples, 2 * n_samples))
        return 0

    def say(self, text: str, pitch: int, rate: int) -> bytes:
        self._chunks.clear()
        self._library.espeak_SetParameter(self._RATE, rate, 0)
        self._library.espeak_SetParameter(self._PITCH, pitch, 0)
        encoded = text.encode() + b"\0"
        status = self._library.espeak_Synth(
            encoded, ctypes.c_size_t(len(encoded)), 0, self._BY_CHARACTER, 0, self._UTF8, None, None
        )
        if status != 0 or not self._chunks:
            raise RuntimeError(f"eSpeak NG did not say {text!r}: status {status}")
        return b"".join(self._chunks)


def _speak_as_requested() -> None:
    """Read one request from standard input, write the utterances' samples to standard output."""
    request = json.load(sys.stdin)
    espeak = _Interface(request["library"], request["data"], request["voice"], request["seed"])
    for utterance in request["utterances"]:
        speech = espeak.say(**utterance)
        sys.stdout.buffer.write(_LENGTH.pack(len(speech)) + speech)


if __name__ == "__main__":
    _speak_as_requested()
