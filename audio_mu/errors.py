"""Errors that a user can cause, told in one line."""


class UserError(Exception):
    """A mistake that the user can mend: the message says what, which value, and what to do.

    Entry points print it as one line without a traceback and end with a non-zero exit code.
    """
