"""An SWR of our own on loopback: repositories, tags, paging, errors and credentials as documented.

For the demonstration, for tagsync's tests, and for the tests of those who build on it::

    with Emulator() as swr:
        swr.push("team/api", "v1", "first build")
        ...  # point a registry's endpoint at swr.url

What it answers, all on one address:

===========================================================  =======================================
``GET /v2/manage/namespaces/{namespace}/repos/{name}/tags``  the tags of a repository
``GET /v2/manage/namespaces``                                the organizations
``GET /v2/manage/repos``                                     the repositories
``GET /v2/manage/shared-repositories``                       what other accounts share
``POST /v3/auth/tokens``                                     signing in, with `Emulator`'s ``users``
``PUT /meta-data/latest/api/token``                          an ECS host's metadata service,
``GET /openstack/latest/securitykey``                        with `Emulator`'s ``agency``
===========================================================  =======================================

The tag list is the vendor's "Querying the List of Image Repository Tags", the other lists are the
calls next to it in the same reference. Where real servers are known to differ from it, the
constructor's arguments make this one differ in the same way; and with `Faults` it misbehaves.
"""

from tagsync.emulator.access import AGENCY_ACCESS_KEY, User
from tagsync.emulator.faults import LIES, MISHAPS, Fault, Faults
from tagsync.emulator.http import Headers, Request
from tagsync.emulator.server import REFERENCE_REPOSITORY, Emulator
from tagsync.emulator.signatures import SKEW_ALLOWED, Keys, signature_fault

__all__ = [
    "AGENCY_ACCESS_KEY",
    "LIES",
    "MISHAPS",
    "REFERENCE_REPOSITORY",
    "SKEW_ALLOWED",
    "Emulator",
    "Fault",
    "Faults",
    "Headers",
    "Keys",
    "Request",
    "User",
    "signature_fault",
]
