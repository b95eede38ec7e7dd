"""An emulated SWR on loopback: repositories, tags, paging, errors and credentials.

``tagsync demo`` and tagsync's tests use the emulator. You can use it in your own tests::

    with Emulator() as swr:
        swr.push("team/api", "v1", "first build")
        ...  # use swr.url as the endpoint of a registry

The emulator answers these requests, all at the same address:

===========================================================  =======================================
``GET /v2/manage/namespaces/{namespace}/repos/{name}/tags``  the tags of a repository
``GET /v2/manage/namespaces``                                the organizations
``GET /v2/manage/repos``                                     the repositories
``GET /v2/manage/shared-repositories``                       the repositories of other accounts
``POST /v3/auth/tokens``                                     a token for one of the ``users``
``PUT /meta-data/latest/api/token``                          a token of the metadata service
``GET /openstack/latest/securitykey``                        the temporary keys of the ``agency``
===========================================================  =======================================

The tag list follows the page "Querying the List of Image Repository Tags" of the vendor's API
reference, and each of the other lists follows its own page there. ``users`` and ``agency`` are
arguments of `Emulator`. Other arguments reproduce known differences between real servers and the
reference. `Faults` makes the emulator misbehave.
"""

from tagsync.emulator.access import AGENCY_ACCESS_KEY, User
from tagsync.emulator.faults import LIES, MISHAPS, Fault, Faults
from tagsync.emulator.http import Headers, Request
from tagsync.emulator.repositories import REFERENCE_REPOSITORY
from tagsync.emulator.server import Emulator
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
