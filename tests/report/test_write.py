"""A report is written in one step, or not at all."""

import os
import resource
import signal
from pathlib import Path

import pytest

from tagsync.report.build import write
from tests.support.commands import contents


def test_a_report_replaces_an_older_one(tmp_path: Path) -> None:
    """The file has the new content, the permissions of any new file, and nothing is beside it."""
    path = tmp_path / "report.html"
    path.write_bytes(b"old")
    write(path, b"new")
    assert contents(tmp_path) == {str(path): b"new"}
    (tmp_path / "other").write_bytes(b"")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """If the name is a symbolic link, the file that it leads to is replaced."""
    (tmp_path / "target").mkdir()
    link = tmp_path / "report.html"
    link.symlink_to("target/real.html")
    write(link, b"new")
    assert link.is_symlink()
    assert (tmp_path / "target" / "real.html").read_bytes() == b"new"


def test_what_is_not_a_file_is_not_replaced(tmp_path: Path) -> None:
    """A folder, or a pipe, is refused by the name that was given, and nothing is left over."""
    folder, pipe = tmp_path / "folder.html", tmp_path / "pipe.html"
    folder.mkdir()
    os.mkfifo(pipe)
    for path in (folder, pipe, tmp_path / "gone" / "report.html"):
        with pytest.raises(OSError, match=r".") as caught:
            write(path, b"new")
        assert caught.value.filename == str(path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder.html", "pipe.html"]


def test_a_failed_write_leaves_the_older_report(tmp_path: Path) -> None:
    """If the disk is full, the older file stays as it is, and no part of the new one."""
    path = tmp_path / "report.html"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            write(path, b"x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.filename == str(path)
    assert contents(tmp_path) == {str(path): b"old"}
