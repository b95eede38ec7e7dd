"""``python -m tests.torture.notifications``: run the torture, and print its figures."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from secrets import randbelow
from shutil import rmtree
from tempfile import mkdtemp

from tests.torture.notifications.run import torture


def main() -> int:
    """Run once; return 1 if something was wrong."""
    parser = ArgumentParser("python -m tests.torture.notifications", description=torture.__doc__)
    parser.add_argument("--seed", type=int, help="random by default")
    parser.add_argument("--changes", type=int, default=10_000, help="how many changes to record")
    parser.add_argument("--keep", action="store_true", help="keep the database and the logs")
    parser.add_argument("--seconds", type=float, default=3600, help="maximum time for them")
    given = parser.parse_args()
    seed = randbelow(10**6) if given.seed is None else given.seed
    folder = Path(mkdtemp(prefix=f"tagsync-notifications-{seed}-"))
    outcome = torture(seed, given.changes, given.seconds, folder)
    _say(f"seed {seed}: {outcome}")
    for sentence in outcome.wrong:
        _say(f"  wrong: {sentence}")
    if outcome.wrong or given.keep:
        _say(f"  the logs are in {folder}")
    else:
        rmtree(folder)
    return 1 if outcome.wrong else 0


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  the report of the run


if __name__ == "__main__":
    sys.exit(main())
