"""The command ``find``, which shows every tag that leads, or led, to a digest."""

from itertools import chain
from typing import Final

import click

from tagsync.cli import Settings
from tagsync.cli.options import StrictCommand, format_option
from tagsync.cli.output import show
from tagsync.cli.setup import open_audit

COLUMNS: Final = (
    *("repository", "tag", "role", "digest", "platform"),
    *("not_before", "valid_from", "still_at", "valid_to"),
)


@click.command(cls=StrictCommand)
@click.argument("digest")
@format_option
@click.pass_obj
def find(settings: Settings, digest: str, output_format: str) -> None:
    """Show every tag that leads to a digest, now or earlier.

    DIGEST is the digest of a manifest, a configuration (image_id) or a layer, with or without
    sha256:. A unique prefix of at least 6 digits is enough. A tag leads to the manifest that it
    points to, and to the configuration and the layers of this manifest. If the tag points to an
    index, the tag also leads to the images in the index. platform is the platform of such an image.

    The tag began to lead to the digest after not_before and no later than valid_from. The tag still
    led to the digest at still_at, but no longer at valid_to. If valid_to is empty, the tag led to
    the digest in the last listing. If no tag leads to DIGEST, a message on standard error says so.

    \b
    Example:
      tagsync find sha256:8ac8bfaff55a
    """
    with open_audit(settings) as audit:
        found = audit.find(digest)
        first = next(found, None)
        show(() if first is None else chain((first,), found), COLUMNS, output_format)
        if first is None:
            click.echo(
                f"tagsync: no tag leads to {digest}, now or earlier, according to the record;"
                " tagsync knows the configuration and the layers of an image only if the manifest"
                " of the image is recorded",
                err=True,
            )
