"""An emulated OCI registry on loopback, with its vendor's own list of tags.

::

    with OciEmulator(GitLab()) as registry:
        registry.push("team/api", "v1", "first build")
        registry.begin(ListFault.EMPTY)   # the list has no rows, and the status is 200
        ...  # use registry.url as the endpoint of a registry of kind "oci"

The emulator answers the requests of the OCI distribution specification that tagsync sends, and
issues the tokens that it challenges for. A `Vendor` adds the list, one module for each vendor. Its
list has the tags of `OciEmulator.index`, which are right unless a `ListFault` is on.
"""

from tagsync.emulator.oci.acr import Acr
from tagsync.emulator.oci.dockerhub import DockerHub
from tagsync.emulator.oci.gitlab import GitLab
from tagsync.emulator.oci.gitlab_api import GitLabApi
from tagsync.emulator.oci.google import Google
from tagsync.emulator.oci.harbor import Harbor
from tagsync.emulator.oci.quay import Quay
from tagsync.emulator.oci.server import OciEmulator
from tagsync.emulator.oci.vendor import IndexRow, ListFault, Vendor
from tagsync.emulator.oci.zot import Zot

__all__ = [
    "Acr",
    "DockerHub",
    "GitLab",
    "GitLabApi",
    "Google",
    "Harbor",
    "IndexRow",
    "ListFault",
    "OciEmulator",
    "Quay",
    "Vendor",
    "Zot",
]
