"""``python -m tests.torture``: run the torture test and print its figures."""

import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from secrets import randbelow
from shutil import rmtree
from tempfile import mkdtemp

from tagsync.emulator import Fault
from tests.torture.run import Outcome, torture


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
    outcomes = [_run(seed, given.seconds) for seed in range(first, first + given.seeds)]
    failed = [outcome.seed for outcome in outcomes if outcome.wrong]
    for line in _totals(outcomes):
        _say(line)
    _say(f"{given.seeds} runs, {len(failed)} of them wrong")
    for seed in failed:
        _say(f"again: python -m tests.torture --seed {seed} --seconds {given.seconds:g}")
    return 1 if failed else 0


def _run(seed: int, seconds: float) -> Outcome:
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
    return outcome


def _totals(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield the figures of all runs together, by class."""
    figures: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for outcome in outcomes:
        figures.update(outcome.figures)
        faults.update(outcome.faults)
    classes: dict[str, dict[str, int]] = {"all runs": figures}
    classes["stale listings and pages without a total"] = {
        kind: faults.pop(kind, 0) for kind in (Fault.STALE, Fault.NO_TOTAL)
    }
    fronts = {kind: faults.pop(kind) for kind in list(faults) if kind.startswith("front ")}
    classes["a front server's answers"] = {
        kind.removeprefix("front "): count for kind, count in sorted(fronts.items())
    }
    classes["other faults"] = dict(sorted(faults.items()))
    for name, counts in classes.items():
        listed = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        total = "" if counts is figures else f" {sum(counts.values())} of {len(counts)} kinds:"
        yield f"{name}:{total} {listed}"


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  the report of the runs


if __name__ == "__main__":
    sys.exit(main())
