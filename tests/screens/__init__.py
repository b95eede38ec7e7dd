"""The pictures of commands and pages in the documentation, made from real output.

`python -m tests.screens` writes them to ``docs/screens``.
"""
