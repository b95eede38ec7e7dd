"""``python -m tests.torture``: run the torture test and print its figures."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from secrets import randbelow
from shutil import rmtree
from tempfile import mkdtemp

from tests.torture.run import torture


def main() -> int:
    """Run seed after seed; return 1 if any run found something wrong."""
    parser = ArgumentParser("python -m tests.torture", description=torture.__doc__)
    parser.add_argument("--seed", type=int, help="the first seed; random by default")
    parser.add_argument(
        "--seeds", type=int, default=1, help="how many runs; each uses the next seed"
    )
    parser.add_argument("--seconds", type=float, default=30, help="the length of each run")
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
    print(line, flush=True)  # noqa: T201  the report of the runs


if __name__ == "__main__":
    sys.exit(main())
