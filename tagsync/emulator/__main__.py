"""An emulated SWR to try tagsync with: sample repositories in which something happens all the time.

::

    python -m tagsync.emulator --port 8080 --faults 0.1

serves until it is interrupted. It prints a configuration that watches it.
"""

import time
from argparse import ArgumentParser, ArgumentTypeError
from random import Random
from typing import Final

from tagsync.emulator import Emulator, Faults

CONFIG: Final = """\
[schedule]
interval = "5s"

[[registries]]
name = "emulated"
endpoint = "{endpoint}"

[[registries.watch]]
repositories = ["*"]
"""

_SAMPLES: Final = {"team-a/api": 30, "team-a/web/frontend": 12, "team-b/base": 4}
"""Repositories, and how many tags each begins with."""


class Activity:
    """What people do to repositories: they push, move and delete tags."""

    def __init__(self, swr: Emulator, seed: int) -> None:
        """Fills the sample repositories."""
        self._swr = swr
        self._random = Random(seed)  # noqa: S311  to be repeatable is the point
        self._builds = 0
        for repository, count in _SAMPLES.items():
            for _ in range(count):
                self._push(repository)

    def act(self) -> str:
        """Does one thing; returns what it was."""
        repository = self._random.choice(list(_SAMPLES))
        tags = list(self._swr.tags(repository))
        what = self._random.choice(("push", "move", "delete")) if len(tags) > 1 else "push"
        if what == "push":
            return f"{repository}:{self._push(repository)} is pushed"
        tag = self._random.choice(tags)
        if what == "delete":
            self._swr.delete(repository, tag)
            return f"{repository}:{tag} is deleted"
        self._push(repository, tag)
        return f"{repository}:{tag} moves"

    def _push(self, repository: str, tag: str | None = None) -> str:
        self._builds += 1
        name = tag or f"v{self._builds}"
        self._swr.push(repository, name, f"build {self._builds}")
        return name


def main() -> None:
    """Serves until SIGINT, and says what happens."""
    parser = ArgumentParser("python -m tagsync.emulator", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="a free one if left out")
    parser.add_argument("--seed", type=int, default=0, help="of what happens and what goes wrong")
    parser.add_argument("--every", type=_seconds, default=1.0, help="seconds between two changes")
    parser.add_argument(
        "--faults", type=_rate, default=0.0, help="how likely a request goes wrong, or a page lies"
    )
    given = parser.parse_args()
    faults = Faults.evenly(given.faults, seed=given.seed)
    try:
        with Emulator(port=given.port, max_page=10, faults=faults) as swr:
            activity = Activity(swr, given.seed)
            _say(CONFIG.format(endpoint=swr.url))
            while True:
                time.sleep(given.every)
                _say(activity.act())
    except (OSError, OverflowError) as error:
        parser.error(f"port {given.port} cannot be had ({error}): give another one")
    except KeyboardInterrupt:
        _say(f"went wrong: {', '.join(f'{n} {kind}' for kind, n in faults.counts.items()) or None}")


def _rate(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise ArgumentTypeError(f"{text} is no probability: give one between 0 and 1")
    return float(text)


def _seconds(text: str) -> float:
    if not 0 < float(text) < 86400:  # noqa: PLR2004  a day
        raise ArgumentTypeError(f"{text} is no number of seconds that somebody would wait")
    return float(text)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  what it is run for


if __name__ == "__main__":
    main()
