"""The manifests for Compose and Kubernetes: valid, in step with the image, and locked down."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from textwrap import dedent
from typing import Final

import pytest

from tagsync.config import load
from tests.support.documents import fenced_blocks, read_page
from tests.support.paths import ROOT

DEPLOY: Final = ROOT / "deploy"
SAMPLE: Final = DEPLOY / "config.sample.toml"
KUBERNETES: Final = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
STATEFUL_SET: Final = (DEPLOY / "kubernetes" / "statefulset.yaml").read_text()
CONTAINERFILE: Final = (DEPLOY / "Containerfile").read_text()
VERSION: Final[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def validate(*command: str) -> "subprocess.CompletedProcess[str]":
    """Run a validator of the development environment."""
    program = Path(sys.executable).with_name(command[0])
    return subprocess.run(
        [program, *command[1:]], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.processes
@pytest.mark.parametrize("version", ["1.28.0", "1.34.0"])
def test_kubernetes_knows_each_field(version: str) -> None:
    """The manifests are valid for an old and a new Kubernetes, and have no unknown field."""
    done = validate("kubernetes-validate", "--strict", "-k", version, *map(str, KUBERNETES))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("passed") == len(KUBERNETES)


@pytest.mark.processes
def test_a_misspelled_field_is_found(tmp_path: Path) -> None:
    """The validation is strict: it refuses a field that Kubernetes would ignore."""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(STATEFUL_SET.replace("readOnlyRootFilesystem", "readOnlyRootFileSystem"))
    assert validate("kubernetes-validate", "--strict", str(wrong)).returncode != 0


@pytest.mark.processes
def test_the_compose_file_is_valid() -> None:
    """The Compose file follows the schema of the Compose specification."""
    done = validate(
        "check-jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        str(DEPLOY / "compose.yaml"),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_configuration_of_the_container_is_valid() -> None:
    """The daemon is reachable from outside, and reads secrets where the manifests mount them."""
    config = load(SAMPLE, {"STATE_DIRECTORY": "/data"})
    assert config.listen == ("0.0.0.0", 9180)  # noqa: S104  in a container
    assert str(config.database) == "/data/tagsync.db"
    secrets = re.findall(r"file:/run/secrets/([\w-]+)", SAMPLE.read_text())
    compose = (DEPLOY / "compose.yaml").read_text()
    assert f"secrets: [{', '.join(secrets)}]" in compose
    assert "mountPath: /run/secrets" in STATEFUL_SET


def test_kubernetes_has_the_same_configuration() -> None:
    """The ConfigMap contains the sample."""
    _, _, text = (DEPLOY / "kubernetes/configmap.yaml").read_text().partition("  config.toml: |\n")
    assert dedent(text) == SAMPLE.read_text()


def test_the_manifests_run_this_version_as_the_user_of_the_image() -> None:
    """Image, user, port and volume are those of the Containerfile."""
    assert f"image: tagsync:{VERSION}\n" in STATEFUL_SET
    (user,) = re.findall(r"^USER (\d+):\1$", CONTAINERFILE, re.MULTILINE)
    for field in ("runAsUser", "runAsGroup", "fsGroup"):
        assert f"{field}: {user}\n" in STATEFUL_SET
    (port,) = re.findall(r"^EXPOSE (\d+)$", CONTAINERFILE, re.MULTILINE)
    assert f"containerPort: {port}\n" in STATEFUL_SET
    (volume,) = re.findall(r"^VOLUME (\S+)$", CONTAINERFILE, re.MULTILINE)
    assert f"mountPath: {volume}\n" in STATEFUL_SET


def test_probes_ask_only_whether_a_restart_may_help() -> None:
    """Startup and liveness ask /livez, and readiness depends on nothing."""
    assert re.findall(r"(\w+)Probe:\n +httpGet:\n +path: (\S+)", STATEFUL_SET) == [
        ("startup", "/livez"),
        ("liveness", "/livez"),
    ]
    assert "readinessProbe" not in STATEFUL_SET
    assert "/healthz" not in STATEFUL_SET + CONTAINERFILE
    assert re.search(
        r'^HEALTHCHECK .*CMD \["tagsync", "healthcheck"\]$', CONTAINERFILE, re.MULTILINE
    )


@pytest.mark.parametrize(
    "line",
    [
        "replicas: 1",
        "runAsNonRoot: true",
        "allowPrivilegeEscalation: false",
        "readOnlyRootFilesystem: true",
        "drop: [ALL]",
        "automountServiceAccountToken: false",
        "type: RuntimeDefault",
    ],
)
def test_the_pod_has_no_rights_that_it_does_not_need(line: str) -> None:
    """One pod, which is not root, cannot write to its root, and has no capability."""
    assert re.search(rf"^ +{re.escape(line)}$", STATEFUL_SET, re.MULTILINE)


@pytest.mark.parametrize("block", fenced_blocks(read_page("docs/container.md"), "sh"))
def test_the_documented_commands_name_files_that_exist(block: str) -> None:
    """The shell can read each block of commands, and the files of deploy/ in it are there."""
    assert subprocess.run(["bash", "-n", "-c", block], check=False).returncode == 0
    for name in re.findall(r"deploy/[\w./-]*\w", block):
        assert (ROOT / name).exists() or name.startswith("deploy/secrets/"), name


def test_no_file_names_an_index() -> None:
    """No file contains a URL but the endpoint of the sample, nor the host of an index."""
    for path in (each for each in DEPLOY.rglob("*") if each.is_file()):
        text = path.read_text().replace("https://swr-api.eu-de.otc.t-systems.com", "")
        urls = re.findall(r"\w+://\S+", text)
        assert urls in ([], ["http://tagsync:9180/metrics"]), path
        assert not re.search(r"docker\.io|quay\.io|ghcr\.io|gcr\.io", text), path
