"""The one exception that means: the input is at fault, and the message says how to mend it."""


class UserError(Exception):
    """Bad input. The message says what failed, expected against got, and the flag or command that mends it.

    The command line prints it without a traceback and exits with status 2.
    """
