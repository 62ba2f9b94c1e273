"""What a user can put right: one line that names the file, the flag or the row."""

import errno

# What a full, read-only or vanished disk says of any file.
DISK_FAILED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ENODEV, errno.ENOTCONN}
DISK_FAILED |= {errno.ESTALE}


class UserError(Exception):
    """A mistake in the input; commands print its one line and exit with code 2."""


def first_line(error: BaseException) -> str:
    """The first line of an error that says something, or else the name of its kind."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
