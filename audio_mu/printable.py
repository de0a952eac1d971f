"""Text of others as it may be shown: nothing that a terminal obeys or a reader cannot see, and no password."""

from __future__ import annotations

import re

OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Control characters but tab and line feed, invisible ones, those that turn the order of letters, half characters."""
IN_ADDRESS = re.compile(r"(\b\w[\w+.-]{0,30}://[^\s/:@]*:)\S+(?=@)")
ALONE = re.compile(r"(https?://)[^\s/:@]+(?=@)")
IN_QUERY = re.compile(
    r"([?&](?:[\w-]{0,30}(?:password|passwd|pwd|token|secret|signature|credential)[\w-]{0,30}|sig|"
    r"(?:[\w-]{0,30}(?:api|access)[_-]?)?key)=)[^&\s'\"]+",
    re.IGNORECASE,
)
HIDDEN = "***"


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

    Up to the last @ of a word: a password may have an @ or a / in it.
    """
    if "://" not in text:
        return text
    return IN_QUERY.sub(rf"\1{HIDDEN}", ALONE.sub(rf"\1{HIDDEN}", IN_ADDRESS.sub(rf"\1{HIDDEN}", text)))
