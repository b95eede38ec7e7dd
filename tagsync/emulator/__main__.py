"""An emulated SWR to try tagsync with. The tags of its repositories keep changing.

::

    python -m tagsync.emulator --port 8080 --faults 0.1

The command prints a configuration with which tagsync polls the emulated SWR. It runs until it is
interrupted.
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
"""The sample repositories and their initial number of tags."""

_DAY_SECONDS: Final = 86400


class Activity:
    """Random pushes, moves and deletions of tags in the sample repositories."""

    def __init__(self, swr: Emulator, seed: int) -> None:
        """Push the initial tags of the sample repositories."""
        self._swr = swr
        self._random = Random(seed)  # noqa: S311  the same seed must give the same activity
        self._builds = 0
        for repository, count in _SAMPLES.items():
            for _ in range(count):
                self._push(repository)

    def act(self) -> str:
        """Change one tag and return a sentence that describes the change."""
        repository = self._random.choice(list(_SAMPLES))
        tags = list(self._swr.tags(repository))
        action = self._random.choice(("push", "move", "delete")) if len(tags) > 1 else "push"
        if action == "push":
            return f"{repository}:{self._push(repository)} is pushed"
        tag = self._random.choice(tags)
        if action == "delete":
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
    """Run an emulated SWR whose tags keep changing, until it is interrupted."""
    parser = ArgumentParser("python -m tagsync.emulator", description=main.__doc__)
    parser.add_argument(
        "--port", type=int, default=0, help="port to listen on (default: any free port)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the random changes and faults (default: 0)"
    )
    parser.add_argument(
        "--every", type=_seconds, default=1.0, help="seconds between two changes (default: 1)"
    )
    parser.add_argument(
        "--faults",
        type=_probability,
        default=0.0,
        help="probability that a request fails, and also that a page of tags is wrong (default: 0)",
    )
    options = parser.parse_args()
    faults = Faults.evenly(options.faults, seed=options.seed)
    try:
        with Emulator(port=options.port, max_page=10, faults=faults) as swr:
            activity = Activity(swr, options.seed)
            _print(CONFIG.format(endpoint=swr.url))
            while True:
                time.sleep(options.every)
                _print(activity.act())
    except (OSError, OverflowError) as error:
        parser.error(f"cannot listen on port {options.port} ({error}): give another port")
    except KeyboardInterrupt:
        counts = ", ".join(f"{count} {kind}" for kind, count in faults.counts.items())
        _print(f"faults: {counts or 'none'}")


def _probability(text: str) -> float:
    number = _number(text)
    if not 0 <= number <= 1:
        raise ArgumentTypeError(f"invalid probability {text!r}: give a number from 0 to 1")
    return number


def _seconds(text: str) -> float:
    number = _number(text)
    if not 0 < number < _DAY_SECONDS:
        raise ArgumentTypeError(
            f"invalid number of seconds {text!r}: give a number above 0 and below {_DAY_SECONDS}"
            " (a day)"
        )
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ArgumentTypeError(f"invalid number {text!r}: write it like 0.5") from None


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201  the output of the command


if __name__ == "__main__":
    main()
