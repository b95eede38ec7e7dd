"""The pictures of commands in the documentation, made from real output.

`python -m tests.screens` writes them to ``docs/screens``.
"""
