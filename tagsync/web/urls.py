"""The URLs of the pages."""

from urllib.parse import quote, urlencode

from tagsync.audit.selection import exact_pattern


def url(path: str, **parameters: str | int | None) -> str:
    """Return the URL of a page. Parameters that are None or empty are left out."""
    given = {name: value for name, value in parameters.items() if value not in {None, ""}}
    return f"{path}?{urlencode(given)}" if given else path


def repository_url(name: str) -> str:
    """Return the URL of a repository's page."""
    return url("/repository", name=name)


def tag_url(repository: str, tag: str) -> str:
    """Return the URL of a tag's page."""
    return url("/tag", repository=repository, tag=tag)


def report_url(repository: str, tag: str | None = None) -> str:
    """Return the URL of the report on a repository, or on one of its tags."""
    return url("/report", pattern=exact_pattern(repository, tag), format="html")


def image_url(digest: str) -> str:
    """Return the URL of an image's page. A chart may have ten thousands of these."""
    return f"/image?digest={quote(digest, safe=':')}"


def layer_url(digest: str) -> str:
    """Return the URL of a layer's page."""
    return url("/layer", digest=digest)
