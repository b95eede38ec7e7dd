"""The tree of errors in the module's docstring."""

import inspect
import re

from tagsync import errors
from tagsync.errors import RegistryError, TagsyncError


def documented_errors() -> dict[str, tuple[str | None, bool]]:
    """Return the parent of each error in the docstring, and whether it is transient."""
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


def test_docstring_shows_the_tree_of_errors() -> None:
    """The tree in the docstring has every error, its base class and a transient mark."""
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
    assert documented_errors() == expected
