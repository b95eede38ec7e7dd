"""One pass over many repositories."""

from tagsync.polling.poll import Options, sync_all

__all__ = ["Options", "sync_all"]
