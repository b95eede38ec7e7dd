"""Mirrors container-registry tags into a local SQLite database and keeps their history."""
