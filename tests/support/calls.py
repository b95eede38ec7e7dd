"""Calls that must not wait for ever."""

import threading
from collections.abc import Callable
from concurrent.futures import Future


def raised_by(what: Callable[[], object], seconds: float = 10) -> BaseException | None:
    """What ended a call that should not wait for ever, or null where it came back.

    Raises:
        TimeoutError: it waits still; its thread ends with the process.
    """
    call: Future[object] = Future()

    def run() -> None:
        try:
            call.set_result(what())
        except BaseException as error:  # noqa: BLE001  told to whoever asked
            call.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return call.exception(timeout=seconds)
