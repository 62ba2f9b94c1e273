"""The one exception a person who types a command is meant to read."""


class UserError(Exception):
    """Something the user can put right: the message is one line that names the file, the key or the row.

    Commands print it on stderr without a traceback and exit with code 2.
    """
