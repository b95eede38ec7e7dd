"""The verification of a report: the recorded one, and one that is run for it."""

from tagsync.audit.queries import Audit
from tagsync.audit.rows import HeadRow
from tagsync.report.content import ReportVerification


def last_verification(audit: Audit) -> ReportVerification | None:
    """Return the last verification that the daemon recorded, or None if there was none.

    Raises:
        DamagedRecord: If its row is not what tagsync wrote.
    """
    last = audit.last_verification()
    if last is None:
        return None
    heads = [
        HeadRow("changes", last.change_id, last.head),
        HeadRow("observations", last.ended, last.observations_head),
    ]
    return ReportVerification(last.at, last.result, last.seconds, last.detail, heads)
