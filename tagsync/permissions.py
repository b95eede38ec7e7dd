"""Explain why a user cannot read a file."""

import grp
import os
import stat
from pathlib import Path


def group_advice(path: Path) -> str | None:
    """Return a phrase that names the group whose members may read a file.

    Returns:
        The phrase. None if this user may read the file, is a member of that group, or would need
        more than to be a member.
    """
    steps = [*reversed(path.absolute().parents), path]
    for step in steps:
        is_file = step is path
        if os.access(step, os.R_OK if is_file else os.X_OK):
            continue
        try:
            status = step.stat()
        except OSError:
            return None
        needed = stat.S_IRGRP if is_file else stat.S_IXGRP
        if not status.st_mode & needed or status.st_gid in {os.getegid(), *os.getgroups()}:
            return None
        return _advice(status.st_gid)
    return None


def _advice(number: int) -> str:
    try:
        group = grp.getgrgid(number).gr_name
    except KeyError:
        group = str(number)
    return (
        f"members of the group {group} may read it: run usermod --append --groups {group} USER as"
        " root, and log in again"
    )
