"""Notifications of pushes, cut down from the samples that docs/push-hints.md names."""

from typing import Any, Final, NamedTuple


class Sample(NamedTuple):
    """One notification, and what it means.

    Attributes:
        sender: The name of its format.
        repositories: The repositories whose tags may have changed.
        event_type: The header ``Ce-Type``.
    """

    sender: str
    body: Any
    repositories: tuple[str, ...]
    event_type: str | None = None


_DIGEST: Final = "sha256:fea8895f450959fa676bcc1df0611ea93823a735a01205fd8622846041d0c7cf"


def distribution(action: str, **target: str) -> dict[str, Any]:
    """An envelope with one event of docker-registry."""
    media_type = "application/vnd.docker.distribution.manifest.v2+json"
    return {
        "events": [
            {
                "id": "320678d8-ca14-430f-8bb6-4ca139cd83f7",
                "timestamp": "2016-03-09T14:44:26.402973972-08:00",
                "action": action,
                "target": {"mediaType": media_type, "digest": _DIGEST, **target},
                "request": {"host": "192.168.100.227:5000", "method": "PUT"},
                "source": {"addr": "xtal.local:5000"},
            }
        ]
    }


def harbor(kind: str, tag: str) -> dict[str, Any]:
    """A notification of Harbor in its format Default."""
    return {"type": kind, "occur_at": 1680501893, "event_data": _harbor_data(tag)}


def harbor_cloud_event(kind: str, tag: str) -> dict[str, Any]:
    """A notification of Harbor in its format CloudEvents."""
    return {
        "specversion": "1.0",
        "source": "/projects/1/webhook/policies/3",
        "type": kind,
        "datacontenttype": "application/json",
        "data": _harbor_data(tag),
        "operator": "harbor-jobservice",
    }


def _harbor_data(tag: str) -> dict[str, Any]:
    repository = {"name": "busybox", "namespace": "library", "repo_full_name": "library/busybox"}
    resource = {"digest": _DIGEST, "tag": tag, "resource_url": f"harbor.dev/library/busybox:{tag}"}
    return {"resources": [resource], "repository": repository}


def docker_hub(repository: str, tag: str) -> dict[str, Any]:
    """A notification of Docker Hub."""
    return {
        "callback_url": "https://registry.hub.docker.com/u/svendowideit/testhook/hook/2141b5bi5/",
        "push_data": {"pushed_at": 1417566161, "pusher": "trustedbuilder", "tag": tag},
        "repository": {"name": "testhook", "owner": "svendowideit", "repo_name": repository},
    }


def quay(**more: Any) -> dict[str, Any]:
    """A notification of Quay."""
    return {
        "name": "test",
        "repository": "dgangaia/test",
        "namespace": "dgangaia",
        "docker_url": "quay.io/dgangaia/test",
        **more,
    }


def github(event: str, url: str, tag: str, action: str = "published") -> dict[str, Any]:
    """A notification of GitHub: ``package`` or ``registry_package``."""
    metadata = {"tag": {"name": tag, "digest": _DIGEST}}
    version = {"version": _DIGEST, "container_metadata": metadata, "package_url": url}
    return {
        "action": action,
        event: {"name": "hello-world", "namespace": "Codertocat", "package_version": version},
        "repository": {"full_name": "Codertocat/hello-world"},
    }


def azure(action: str, **target: str) -> dict[str, Any]:
    """A notification of Azure's container registry."""
    return {
        "id": "cb8c3971-9adc-488b-bdd8-43cbb4974ff5",
        "action": action,
        "target": {"digest": _DIGEST, "length": 524, **target},
        "request": {"host": "myregistry.azurecr.io", "method": "PUT"},
    }


def event_grid(key: str, kind: str, **target: str) -> dict[str, Any]:
    """An event of Azure's Event Grid, in its own schema or as a CloudEvent."""
    return {
        "subject": "aci-helloworld:v1",
        key: f"Microsoft.ContainerRegistry.{kind}",
        "data": {"action": "push", "target": {"digest": _DIGEST, **target}},
    }


VALIDATION: Final[list[dict[str, Any]]] = [
    {
        "topic": "/subscriptions/1",
        "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "data": {"validationCode": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6"},
    }
]
"""The request by which Azure's Event Grid asks whether an endpoint wants its events."""

_ZOT: Final = {"name": "golang", "reference": "latest", "digest": _DIGEST, "manifest": "{}"}

SAMPLES: Final = (
    Sample(
        "distribution",
        distribution("push", repository="library/test", tag="latest"),
        ("library/test",),
    ),
    Sample("distribution", distribution("push", repository="library/test"), ()),
    Sample("distribution", distribution("pull", repository="library/test", tag="latest"), ()),
    Sample("distribution", distribution("delete", repository="library/test"), ("library/test",)),
    Sample("harbor", harbor("PUSH_ARTIFACT", "v1"), ("library/busybox",)),
    Sample("harbor", harbor("PUSH_ARTIFACT", _DIGEST), ()),
    Sample("harbor", harbor("DELETE_ARTIFACT", _DIGEST), ("library/busybox",)),
    Sample("harbor", harbor("PULL_ARTIFACT", "v1"), ()),
    Sample(
        "harbor-cloudevents",
        harbor_cloud_event("harbor.artifact.pushed", "v1"),
        ("library/busybox",),
    ),
    Sample(
        "harbor-cloudevents",
        harbor_cloud_event("harbor.artifact.deleted", _DIGEST),
        ("library/busybox",),
    ),
    Sample("harbor-cloudevents", harbor_cloud_event("harbor.artifact.pulled", "v1"), ()),
    Sample("docker-hub", docker_hub("svendowideit/testhook", "latest"), ("svendowideit/testhook",)),
    Sample("quay", quay(updated_tags=["latest"]), ("dgangaia/test",)),
    Sample(
        "github",
        github("package", "ghcr.io/Codertocat/hello-world:v1", "v1"),
        ("codertocat/hello-world",),
    ),
    Sample(
        "github",
        github("registry_package", "ghcr.io/Codertocat/hello-world:", "", "updated"),
        ("codertocat/hello-world",),
    ),
    Sample("azure", azure("push", repository="hello-world", tag="v1"), ("hello-world",)),
    Sample("azure", azure("delete", repository="hello-world"), ("hello-world",)),
    Sample("azure", azure("chart_push", repository="hello-world", tag="v1"), ()),
    Sample(
        "azure-event-grid",
        [event_grid("eventType", "ImagePushed", repository="aci-helloworld", tag="v1")],
        ("aci-helloworld",),
    ),
    Sample(
        "azure-event-grid",
        event_grid("type", "ImageDeleted", repository="aci-helloworld"),
        ("aci-helloworld",),
    ),
    Sample("zot", _ZOT, ("golang",), "zotregistry.image.updated"),
    Sample("zot", {**_ZOT, "reference": _DIGEST}, (), "com.example.registry.image.updated"),
    Sample("zot", {**_ZOT, "reference": _DIGEST}, ("golang",), "zotregistry.image.deleted"),
    Sample("zot", {"type": "zotregistry.image.updated", "data": _ZOT}, ("golang",)),
    Sample("zot", _ZOT, (), "zotregistry.image.lint_failed"),
)
"""Each format, with events that change a tag and events that do not."""
