"""The page on releases: its commands build the wheel, the sdist and the SBOM."""

import json
import os
import re
import subprocess
import tomllib
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

from tests.support.documents import fenced_blocks, read_page
from tests.support.installed import build, unpack
from tests.support.paths import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

GROUPS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
"""The groups of Keep a Changelog."""


def plain(name: str) -> str:
    """Return the name of a distribution, or of a requirement, in the one form of the index."""
    match = re.match(r"[\w.-]+", name)
    assert match
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def test_the_changelog_has_its_form() -> None:
    """Unreleased changes come first, then the versions, none above that of the project."""
    text = read_page("docs/CHANGELOG.md")
    first, *released = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert first == "Unreleased"
    matches = [re.fullmatch(r"(\d+)\.(\d+)\.(\d+) - \d{4}-\d\d-\d\d", title) for title in released]
    numbers = [tuple(map(int, match.groups())) for match in matches if match]
    assert len(numbers) == len(released)
    assert numbers == sorted(set(numbers), reverse=True)
    assert all(number <= tuple(map(int, PROJECT["version"].split("."))) for number in numbers)
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= GROUPS


@pytest.mark.processes
def test_the_commands_build_a_release(tmp_path: Path) -> None:
    """The documented commands build three files, and the SBOM lists what the wheel installs."""
    if os.environ.get("CI") != "true":
        pytest.skip("downloads the tools that make a release, so it runs with CI=true only")
    (commands,) = fenced_blocks(read_page("docs/release.md"), "sh")
    source = unpack(build(ROOT, tmp_path, "sdist"), tmp_path)
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands], cwd=source, check=True, timeout=600
    )

    name = f"tagsync-{PROJECT['version']}"
    assert {path.name for path in (source / "dist").iterdir()} == {
        *(f"{name}-py3-none-any.whl", f"{name}.tar.gz", "tagsync.cdx.json")
    }
    bill = json.loads((source / "dist/tagsync.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    described = bill["metadata"]["component"]
    assert (described["name"], described["version"]) == ("tagsync", PROJECT["version"])

    (packages,) = source.glob("build/environment/lib/python*/site-packages")
    installed = {(plain(each.name), each.version) for each in distributions(path=[str(packages)])}
    listed = {(plain(each["name"]), each["version"]) for each in bill["components"]}
    assert listed == installed - {("tagsync", PROJECT["version"])}
    (needs,) = (
        node["dependsOn"] for node in bill["dependencies"] if node["ref"] == described["bom-ref"]
    )
    # A package that only an extra names is listed, too, if another package brings it along.
    optional = {
        plain(name) for extra in PROJECT["optional-dependencies"].values() for name in extra
    }
    required = {plain(name) for name in PROJECT["dependencies"]}
    assert required <= {plain(name) for name in needs} <= required | optional
