"""Torture: faults, lies, several processes and SIGKILL at any moment, all at once.

::

    python -m tests.torture --seed 7 --seconds 30

Three emulated registries change and misbehave, each behind a front server that sometimes answers
itself, while several ``tagsync sync`` and one ``tagsync run`` work on one database. They are
killed, and sometimes the power is cut: then what was not synced is gone, too. A journal keeps what
the registries really held. At the end every claim of the history is compared with it, see `judge`.

The seed determines the operations on the registries, the faults and lies, and how each process
ends. It does not determine how the system schedules the processes, so a seed that fails may need
several runs to fail again.
"""
