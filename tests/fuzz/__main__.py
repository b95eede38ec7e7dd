"""Fuzz every target for a limited time, each in a process of its own."""

import argparse
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.targets import SEEDS, TARGETS


def main() -> None:
    """Run the command line. The exit status is 1 if there was a finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="of all targets together")
    parser.add_argument("--target", choices=TARGETS, help="only this one")
    arguments = parser.parse_args()
    names = [arguments.target] if arguments.target else list(TARGETS)
    found = [_run(name, max(1, arguments.seconds // len(names))) for name in names]
    sys.exit(any(found))


def _run(name: str, seconds: int) -> bool:
    with TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(SEEDS):
            (corpus / str(number)).write_bytes(seed)
        finished = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz.run", name, str(corpus)),
                *(f"-max_total_time={seconds}", f"-artifact_prefix={folder}/", "-max_len=4096"),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + 120,
        )
        findings = [path.read_bytes() for path in Path(folder).glob("*-*") if path.is_file()]
        kept = sum(1 for _ in corpus.iterdir())
    runs = re.findall(r"Done (\d+) runs", finished.stderr)
    runs = runs or re.findall(r"^#(\d+)", finished.stderr, re.MULTILINE)
    edges = re.findall(r"cov: (\d+)", finished.stderr)
    print(  # noqa: T201  the command's output
        f"{name}: {runs[-1] if runs else '?'} executions, {edges[-1] if edges else '?'} edges,"
        f" {kept} inputs kept, {len(findings)} findings"
    )
    for finding in findings:
        print(f"  {finding!r}")  # noqa: T201  as above
    if finished.returncode and not findings:
        print(finished.stderr[-2000:])  # noqa: T201  as above
    return bool(findings or finished.returncode)


main()
