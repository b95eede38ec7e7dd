"""Torture of the notifications: bad receivers, SIGKILL at any moment and full disks, all at once.

::

    python -m tests.torture.notifications --seed 7 --changes 100000

An emulated registry changes without pause, while a ``tagsync run`` and ``tagsync sync`` work on
one database and send to three destinations: two webhooks and a command. The processes are killed,
or paused until another one has taken over their lease. The disk of the database fills up. The
receivers are killed, slow, refuse, answer with garbage or too late, and break off.

Each receiver appends what it gets to a log, and syncs the log before it accepts. At the end the
logs alone are compared with the tables ``changes`` and ``events``, see `judge`.

The seed determines what the receivers do, and when processes are killed. It does not determine how
processes interleave, so a seed that fails may need several runs to fail again.
"""
