"""Run a call that might hang, with a time limit."""

import threading
from collections.abc import Callable
from concurrent.futures import Future


def raised_by(what: Callable[[], object], seconds: float = 10) -> BaseException | None:
    """Return the exception that a call raised, or `None` if it returned.

    Raises:
        TimeoutError: If the call is still running after this many seconds. Its thread ends with
            the process.
    """
    call: Future[object] = Future()

    def run() -> None:
        try:
            call.set_result(what())
        except BaseException as error:  # noqa: BLE001  returned to the caller
            call.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return call.exception(timeout=seconds)
