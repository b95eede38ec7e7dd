"""A process that delivers notifications until it is killed: ``DATABASE URL``."""

import sys
from pathlib import Path
from threading import Event

from tagsync import log
from tagsync.database.store import Store
from tagsync.notify.targets import Rule, WebhookTarget
from tagsync.notify.workers import Workers
from tagsync.secrets import Secret


def main(database: str, url: str) -> None:
    """Deliver to one webhook. A backoff ends soon, so that a test need not wait."""
    log.configure("json", "error")
    with Store.open(Path(database)) as store:
        workers = Workers(store.outbox, interval=0.02)
        workers.apply([Rule("ops", WebhookTarget(Secret(url)), batch_size=7)])
        Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
