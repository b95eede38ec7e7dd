"""The SQLite file: the mirror, the history and the observations.

`tagsync.database.store` is the entrance for writers, `tagsync.database.connection` for readers.
"""
