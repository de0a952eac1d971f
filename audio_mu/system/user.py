"""What libraries ask of a user: a name, a home, a folder for temporary files. Containers may have none of them."""

from __future__ import annotations

import getpass
import os
import tempfile
from pathlib import Path

from audio_mu.errors import UserError


def check_user() -> None:
    """Give a user without a name its number for one.

    Raises `UserError` where it has no home folder, which MLflow asks for while it is imported, or where no temporary
    folder can be used.
    """
    try:
        Path.home()
    except RuntimeError:  # neither HOME nor an entry in the system's list of users
        raise UserError("this user has no home folder: set HOME to a folder that can be written to") from None
    temporary_root()
    try:
        getpass.getuser()
    except (KeyError, OSError):  # torch makes a folder's name of it
        os.environ["LOGNAME"] = f"user-{os.getuid()}"


def temporary_root() -> Path:
    """The folder of temporary files. Raises `UserError` where none can be used."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise UserError("there is no usable temporary folder: set TMPDIR to one with free space and rights") from None
