"""Query the images of a report's answer."""

from collections.abc import Iterator, Sequence
from typing import Final

from tagsync.audit.charts import Charts
from tagsync.audit.images import ImageDetails
from tagsync.audit.rows import LogRow
from tagsync.report.content import (
    ReportAnswer,
    ReportImage,
    ReportLayer,
    ReportPlatform,
    ReportTag,
)

_TAGS: Final = 10
"""Maximum number of tags that are named for an image."""

_PARTS: Final = 200
"""Maximum number of layers or platforms of an image. Real ones have at most 127 layers."""


def images_of(
    charts: Charts, answers: Sequence[ReportAnswer], changes: Sequence[LogRow]
) -> Iterator[ReportImage]:
    """Yield the images of an answer that are recorded.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    for digest in dict.fromkeys(_digests(answers, changes)):
        if details := charts.image(digest):
            yield _image(details)


def _digests(answers: Sequence[ReportAnswer], changes: Sequence[LogRow]) -> Iterator[str]:
    """Yield the digests at the second time, then those at the first, then those in between."""
    for answer in answers:
        yield from (row.digest for row in answer.at_to if row.digest)
    for answer in answers:
        yield from (row.digest for row in answer.at_from if row.digest)
    for change in reversed(changes):
        yield from filter(None, (change.new_digest, change.old_digest))


def _image(details: ImageDetails) -> ReportImage:
    return ReportImage(
        digest=details.digest,
        media_type=details.media_type,
        size=details.size,
        verified=details.verified,
        first_observed_at=details.first_observed_at,
        platforms=[
            ReportPlatform(each.platform, each.digest) for each in details.platforms[:_PARTS]
        ],
        layers=[ReportLayer(each.digest, each.size) for each in details.layers[:_PARTS]],
        tags_now=details.tags.now,
        tags_ever=details.tags.ever,
        tags=[
            ReportTag(
                each.repository,
                each.tag,
                each.not_before,
                each.valid_from,
                each.still_at,
                each.valid_to,
            )
            for each in details.tags.rows[:_TAGS]
        ],
    )
