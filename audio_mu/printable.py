"""Text of others as it may be shown: nothing that a terminal obeys or a reader cannot see, and no password."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import quote, unquote

OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Control characters but tab and line feed, invisible ones, those that turn the order of letters, half characters."""
WORD = re.compile(r"[^\s'\"<>]+")
"""What may be an address: quotes and brackets end one, in texts and pages."""
AUTHORITY = re.compile(r"(.*?(?<!/)//)(?=[^/])", re.DOTALL)
"""A word up to where an address names its user or host; after three slashes comes a path."""
OF_QUERY = (
    r"([?&](?:[\w-]{0,30}(?:password|passwd|pwd|token|secret|signature|credential)[\w-]{0,30}|sig|"
    r"(?:[\w-]{0,30}(?:api|access)[_-]?)?key)=)"
)
IN_QUERY = re.compile(OF_QUERY + r"[^&\s'\"]+", re.IGNORECASE)
WHOLE_IN_QUERY = re.compile(OF_QUERY + "[^&]+", re.IGNORECASE)  # of a text that is an address and nothing else
HIDDEN = "***"
ADDRESS_NAME = re.compile(r"^(MLFLOW|AUDIO_MU|RAY)_|_(URI|URL|PROXY|ADDRESS)$", re.IGNORECASE)
SECRET_NAME = re.compile(r"_(PASSWORD|TOKEN|SECRET_ACCESS_KEY)$")
"""Names of variables whose values are addresses, and secrets."""
CUTS = re.compile(r"[^\w.+~-]+")
SHORTEST = 3  # characters of a piece that is masked: shorter ones are in every text


def printable(text: str) -> str:
    """A text with what a terminal obeys written as `\\x1b`, and without passwords of addresses.

    The one place through which everything goes that is printed, raised as `UserError`, or put into a page. Twice is as
    once. Line feeds and tabs stay, and so does every letter of every script.
    """
    return OBEYED.sub(lambda found: ascii(found[0])[1:-1], without_passwords(text))


def storable(text: str) -> str:
    """A text with half characters written as `\\udcff`, which no file and no database takes; nothing else changes."""
    return text.encode(errors="backslashreplace").decode()


def without_passwords(text: str) -> str:
    """A text whose addresses have `***` for passwords, tokens and signatures: `postgresql://me:***@host/db`.

    Up to the last @ of a word: a password may have an @ or a / in it. Libraries print parts of an address too, the name
    of a host that there would be, or a port: no piece of a secret that this process's environment holds stays.
    """
    if (known := _known(*_environment())) is not None:
        text = known.sub(HIDDEN, text)
    if "//" not in text:
        return text
    if "@" in text:
        text = WORD.sub(lambda word: _masked(word[0]), text)
    return IN_QUERY.sub(rf"\1{HIDDEN}", text)


def _masked(word: str) -> str:
    """A word without the password of its address; a name without one stays, but for http's, where it is a token."""
    found = AUTHORITY.match(word) if "//" in word and "@" in word else None
    if found is None:
        return word
    before, (told, _, after) = found[1], word[found.end() :].rpartition("@")
    user, colon, _ = told.partition(":")
    if colon and "/" not in user:
        return f"{before}{user}:{HIDDEN}@{after}"
    return f"{before}{HIDDEN}@{after}" if colon or before.lower().endswith(("http://", "https://")) else word


def _environment() -> tuple[str, ...]:
    """The addresses and secrets of this process's environment; an address is marked by its @."""
    return tuple(
        value
        for name, value in os.environ.items()
        if (ADDRESS_NAME.search(name) and "//" in value and "@" in value) or SECRET_NAME.search(name)
    )


@lru_cache(maxsize=4)
def _known(*values: str) -> re.Pattern[str] | None:
    """What finds the pieces of secrets, as they stand or encoded: libraries cut an address at each of `CUTS`."""
    pieces: set[str] = set()
    for value in values:
        before, _, rest = value.partition("//")
        user_info, at, after = rest.rpartition("@")
        user, colon, secret = user_info.partition(":")
        if not rest:
            pieces.add(value)
        elif at and (colon or before.startswith("http")):
            shown = {*CUTS.split(after), user if colon else "", before.strip(":")}
            pieces |= {*_pieces(secret if colon else user)} - shown
        pieces |= {
            piece for found in WHOLE_IN_QUERY.finditer(rest) for piece in _pieces(found[0].removeprefix(found[1]))
        }
    secrets = sorted((piece for piece in pieces if len(piece) >= SHORTEST), key=len, reverse=True)
    patterns = [re.escape(piece) if len(piece) > SHORTEST else rf"\b{re.escape(piece)}\b" for piece in secrets]
    return re.compile("|".join(patterns), re.IGNORECASE) if patterns else None


def _pieces(secret: str) -> Iterator[str]:
    for form in (secret, unquote(secret)):
        for piece in (form, *CUTS.split(form)):
            yield from (piece, quote(piece, safe=""), ascii(piece)[1:-1])
