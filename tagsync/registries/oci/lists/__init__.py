"""The registries' own lists, which have the digests of many tags in one answer.

::

    protocol    what a list is: `TagList`, its `Row`, and the `Access` that it gets
    guard       which digests of a list count, and which tags are resolved by HEAD; pure
    claims      what one read of a list says, compared with the answers to HEAD
    vendor      finds a registry's list once, reads it for each poll, and notes what it got wrong
    pages       helpers to read lists of several pages
    namespaces  the namespaces of globs, for lists of repositories
    gitlab …    one module for each registry

A list is believed only as far as `guard` says. No module of a registry decides that.
"""
