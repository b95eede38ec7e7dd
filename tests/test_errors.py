"""The tree of errors."""

import inspect
import re

from tagsync import errors
from tagsync.errors import RegistryError, TagsyncError


def drawn() -> dict[str, tuple[str | None, bool]]:
    """Return each error in the module's drawing: its parent there, and whether it is transient."""
    found: dict[str, tuple[str | None, bool]] = {}
    parents: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^ {4}([│├└─ ]*)(\w+)( +\*)? ", f"{line} ")
        if match:
            depth = len(match[1])
            while parents and parents[-1][0] >= depth:
                parents.pop()
            found[match[2]] = (parents[-1][1] if parents else None, bool(match[3]))
            parents.append((depth, match[2]))
    return found


def test_the_drawing_is_the_tree() -> None:
    """The drawing in the docstring has every error, below its base class, and what is transient."""
    classes = {
        name: item
        for name, item in inspect.getmembers(errors, inspect.isclass)
        if issubclass(item, TagsyncError)
    }
    expected = {
        name: (
            None if item is TagsyncError else item.__bases__[0].__name__,
            issubclass(item, RegistryError) and item.transient,
        )
        for name, item in classes.items()
    }
    assert drawn() == expected
