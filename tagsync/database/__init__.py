"""The SQLite file: the mirror, the history and the observations.

Code that writes uses `tagsync.database.store`. Code that only reads uses
`tagsync.database.connection`.
"""
