"""Polling: read a repository's tags, decide what changed, record it and log it."""
