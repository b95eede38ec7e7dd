"""tagsync under everything at once: faults, lies, many processes, and SIGKILL at any instant.

::

    python -m tests.torture --seed 7 --seconds 30

Two emulated registries change and misbehave by a seed while several ``tagsync sync`` and a
``tagsync run`` work on one database and are killed. What the registries really held is kept in a
journal, and at the end everything that the history claims is held against it: see `judge`.

From the seed follow the operations on the registries, the draws of faults and of lies, and each
process's end. How all of it interleaves is up to the system's scheduler, so that a seed which fails
may have to be run more than once to fail again.
"""
