"""``python -m tests.torture``: as many runs as asked for, each with its figures."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from secrets import randbelow
from shutil import rmtree
from tempfile import mkdtemp

from tests.torture.run import torture


def main() -> int:
    """Runs seed after seed; the exit status is 1 if anything was wrong."""
    parser = ArgumentParser("python -m tests.torture", description=torture.__doc__)
    parser.add_argument("--seed", type=int, help="of the first run; a random one if left out")
    parser.add_argument("--seeds", type=int, default=1, help="how many runs, a seed further each")
    parser.add_argument("--seconds", type=float, default=30, help="of each run")
    given = parser.parse_args()
    first = randbelow(10**6) if given.seed is None else given.seed
    failed = [seed for seed in range(first, first + given.seeds) if not _run(seed, given.seconds)]
    _say(f"{given.seeds} runs, {len(failed)} of them wrong")
    for seed in failed:
        _say(f"again: python -m tests.torture --seed {seed} --seconds {given.seconds:g}")
    return 1 if failed else 0


def _run(seed: int, seconds: float) -> bool:
    _say(f"seed {seed} begins")
    folder = Path(mkdtemp(prefix=f"tagsync-torture-{seed}-"))
    outcome = torture(seed, seconds, folder)
    _say(str(outcome))
    for sentence in outcome.wrong:
        _say(f"  wrong: {sentence}")
    if outcome.wrong:
        _say(f"  the database and the logs are in {folder}")
    else:
        rmtree(folder)
    return not outcome.wrong


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  what it is run for


if __name__ == "__main__":
    sys.exit(main())
