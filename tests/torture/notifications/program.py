"""A bad program for the kind ``command``. Argument: its log.

It finds the function for the log beside itself, so that it starts without any package. It accepts
everything while a file ``honest`` is beside the log.
"""

import os
import signal
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from random import choices

WEIGHTS = {"accepts": 60, "slow": 10, "status 1": 8, "killed": 6, "killed late": 8, "noisy": 8}
ACCEPTS = {"accepts", "slow", "noisy", "killed late"}


def main(path: Path) -> int:
    """Log the events of the standard input, and accept or fail."""
    honest = path.with_name("honest").exists()
    fault = "accepts" if honest else choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    body = sys.stdin.read()
    if fault == "slow":
        time.sleep(0.5)
    names = ("TAGSYNC_MESSAGE_ID", "TAGSYNC_DESTINATION", "TAGSYNC_EVENTS")
    entry = {
        "at": time.time(),
        "fault": fault,
        "accepted": fault in ACCEPTS,
        "headers": {"webhook-id": os.environ[names[0]], "events": os.environ[names[2]]},
        "body": body,
    }
    spec = spec_from_file_location("log", Path(__file__).with_name("log.py"))
    assert spec is not None
    assert spec.loader is not None
    log = module_from_spec(spec)
    spec.loader.exec_module(log)
    log.append(path, entry)
    if fault.startswith("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "noisy":
        os.write(1, b"\xff\x00\x1b[31mnoise\n" * 100_000)
    return 1 if fault == "status 1" else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
