"""The one exception a user is meant to read."""


class DRPError(ValueError):
    """Bad input or a step that cannot go on.

    The message is one sentence for the user: it names the file, row or field and says what to do. Commands print it
    without a traceback and exit with status 2.
    """
