"""One limit of the rule, and what a method's figure says about it: a fact, an estimate, or too little."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from audio_mu.report.differences import Difference, from_naive
from audio_mu.report.facts import Figures, points


class Side(Enum):
    """How a limit is missed, the gravest first."""

    LOST = "lost"
    ABOVE = "above"
    BELOW = "below"


@dataclass(frozen=True)
class Limit:
    """What is allowed of a figure's difference from naive: `allowed` either way, `one_sided` below alone.

    is_share: a share of recordings, told in points.
    """

    figure: str
    words: str
    allowed: float
    one_sided: bool = False
    is_share: bool = True

    def number(self, value: float) -> str:
        """A size in words."""
        return points(value) if self.is_share else f"{value:.3f}"

    def signed(self, value: float) -> str:
        """A difference in words."""
        return f"{100 * value:+.1f} points" if self.is_share else f"{value:+.3f}"

    def side(self, mean: float) -> Side:
        """The way in which such a difference misses the limit."""
        return Side.LOST if self.one_sided else Side.ABOVE if mean > 0 else Side.BELOW

    def surely_missed(self, mean: float, half: float) -> bool:
        """Whether the whole interval lies beyond."""
        return mean + half < -self.allowed or (not self.one_sided and mean - half > self.allowed)

    @property
    def end(self) -> str:
        """The end of a sentence that tells a violation."""
        return f"{self.number(self.allowed)} {'are' if self.is_share else 'is'} allowed"


@dataclass(frozen=True)
class Reading:
    """A figure of a method beside its limit."""

    limit: Limit
    known: Difference

    @property
    def weak(self) -> bool:
        """Whether so few recordings could not have shown it within the limit: it neither passes nor refuses.

        A loss that is sure, though not how large it is, is no such figure.
        """
        known = self.known
        if known.sampling is None or known.sampling <= self.limit.allowed or self.fact:
            return False
        return not (self.limit.one_sided and known.half is not None and known.mean + known.half < 0)

    @property
    def held(self) -> bool:
        """Whether the interval lies wholly within."""
        mean, half, allowed = self.known.mean, self.known.half, self.limit.allowed
        if half is None or self.weak:
            return False
        return mean - half >= -allowed and (self.limit.one_sided or mean + half <= allowed)

    @property
    def side(self) -> Side:
        """The way in which the figure misses the limit, if it does."""
        seed = self._sure_seed
        in_mean = self.known.half is not None and self.limit.surely_missed(self.known.mean, self.known.half)
        return self.limit.side(self.known.mean if in_mean or seed is None else self.known.by_seed[seed][0])

    @property
    def fact(self) -> str:
        """A violation that is sure, in the mean or on a seed; an empty text where there is none."""
        mean, half = self.known.mean, self.known.half
        if half is not None and self.limit.surely_missed(mean, half):
            return f"{self._told(mean, half)}, {self.limit.end}"
        if (seed := self._sure_seed) is not None:
            return f"on seed {seed} {self._told(*self.known.by_seed[seed])}, {self.limit.end}"
        return ""

    @property
    def estimate(self) -> str:
        """A violation by the best estimate, which is not sure; an empty text where the figure says nothing of it."""
        mean, allowed = self.known.mean, self.limit.allowed
        if self.weak or self.fact:
            return ""
        if mean < -allowed or (not self.limit.one_sided and mean > allowed):
            return f"{self._told(mean, self.known.half)}, {self.limit.end}"
        if not self.limit.one_sided and self.known.typical > allowed:
            typical = self.limit.number(self.known.typical)
            return f"{self.limit.words} differs by {typical} from naive's from seed to seed, {self.limit.end}"
        return ""

    @property
    def words(self) -> str:
        """The difference with its half-width."""
        known = "" if self.known.half is None else f" ± {self.limit.number(self.known.half)}"
        return f"{self.limit.words} ({self.limit.signed(self.known.mean)}{known})"

    @property
    def _sure_seed(self) -> int | None:
        """The seed that is surely the farthest beyond the limit."""
        missed = {
            seed: abs(gap) for seed, (gap, half) in self.known.by_seed.items() if self.limit.surely_missed(gap, half)
        }
        return max(missed, key=lambda seed: missed[seed]) if missed else None

    def _told(self, mean: float, half: float | None) -> str:
        side = "above" if mean > 0 else "below"
        known = "" if half is None else f" (± {self.limit.number(half)})"
        return f"{self.limit.words} is {self.limit.number(abs(mean))} {side} naive's{known}"


def read(limit: Limit, figures: Figures) -> Reading | None:
    """A method's figure beside its limit; None where it has none."""
    known = from_naive(figures, limit.figure)
    return None if known is None else Reading(limit, known)
