"""Parts of recordings: their names, the windows that a recording is cut into, and what shares sound with what.

A part of a recording is named after it, as in `path#12.0-14.0`: from 12 to 14 seconds. The name of a whole recording is
its id below the data root, or the hash of its samples.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

PART = re.compile(r"(.+)#(\d+\.\d+)-(\d+\.\d+)", re.DOTALL)
DIGITS = 6  # of a second: less than a sample
ENOUGH = 0.5  # of a window that a recording's rest must fill to be a clip


class Span(NamedTuple):
    """A part of a recording, in seconds from its beginning."""

    start: float
    end: float


def named(recording: str, span: Span | None) -> str:
    """The name of a part, or of the whole recording."""
    return recording if span is None else f"{recording}#{_text(span.start)}-{_text(span.end)}"


def _text(seconds: float) -> str:
    whole, _, rest = f"{seconds:.{DIGITS}f}".partition(".")
    return f"{whole}.{rest.rstrip('0') or '0'}"


def parted(name: str) -> tuple[str, Span | None]:
    """The recording that a name is of, and the part; None for all of it."""
    found = PART.fullmatch(name) if "#" in name else None
    return (found[1], Span(float(found[2]), float(found[3]))) if found else (name, None)


def recording_of(name: str) -> str:
    """The recording that a name is of."""
    return parted(name)[0]


def without_format(name: str) -> str:
    """A name without the ending of the recording's file."""
    recording, span = parted(name)
    return named(recording.rpartition(".")[0], span)


def windows(span: Span, window: float, hop: float) -> list[Span]:
    """The windows of so many seconds in a span, one every `hop` seconds from its start.

    The rest at the end is one more, shorter, where it holds sound that no window has and fills at least half a window.
    What is shorter than a window is one clip, however short.
    """
    found: list[Span] = []
    start, least = span.start, 10.0**-DIGITS  # 1 - 0.8 is a little less than 0.2
    while start + window <= span.end + least:
        found.append(Span(start, round(min(start + window, span.end), DIGITS)))
        start = round(span.start + len(found) * hop, DIGITS)
    heard = found[-1].end if found else span.start
    if not found or (span.end > heard + least and span.end - start + least >= ENOUGH * window):
        found.append(Span(start, round(span.end, DIGITS)))
    return found


class Heard:
    """Recordings and parts of recordings, by their names: `name in heard` where they share sound with it."""

    def __init__(self, names: Iterable[str]) -> None:
        self._whole: set[str] = set()
        self._parts: dict[str, list[tuple[Span, str]]] = {}
        for name in names:
            recording, span = parted(name)
            if span is None:
                self._whole.add(name)
            else:
                self._parts.setdefault(recording, []).append((span, name))
        for parts in self._parts.values():
            parts.sort()
        self._longest = {of: max(span.end - span.start for span, _ in parts) for of, parts in self._parts.items()}

    def __contains__(self, name: str) -> bool:
        if not self._parts and "#" not in name:
            return name in self._whole
        return next(self.sharing(name), None) is not None

    def sharing(self, name: str) -> Iterator[str]:
        """The names that share sound with a recording or a part."""
        recording, span = parted(name) if self._parts or "#" in name else (name, None)
        if recording in self._whole:
            yield recording
        parts = self._parts.get(recording, [])
        if span is None:
            yield from (other for _, other in parts)
            return
        first = bisect_left(parts, span.start - self._longest.get(recording, 0.0), key=lambda part: part[0].start)
        for other, own in parts[first:]:
            if other.start >= span.end:
                break
            if other.end > span.start:
                yield own


def lengths(names: Iterable[str], seconds: Iterable[float]) -> Iterator[float]:
    """The seconds of each part or recording; `seconds` are those of each one's recording."""
    for name, whole in zip(names, seconds, strict=True):
        span = parted(name)[1]
        yield min(span.end, whole) - span.start if span else whole


def seconds_used(names: Iterable[str], seconds: Iterable[float], longest: float) -> tuple[float, float]:
    """The seconds of sound that clips hear, shared ones once, and those that their recordings have.

    `seconds`: of each clip's recording; `longest`: of a clip.
    """
    spans: dict[str, list[Span]] = {}
    there: dict[str, float] = {}
    for name, whole in zip(names, seconds, strict=True):
        recording, span = parted(name)
        there[recording] = whole
        start, end = span or Span(0.0, whole)
        spans.setdefault(recording, []).append(Span(start, min(end, start + longest, whole)))
    return _covered(spans), sum(there.values())


def _covered(spans: Mapping[str, list[Span]]) -> float:
    total = 0.0
    for own in spans.values():
        until = 0.0
        for start, end in sorted(own):
            total += max(0.0, end - max(start, until))
            until = max(until, end)
    return total
