"""The OCI Distribution Specification's own conformance program, as the admin user.

The environment variable CUMULET_OCI_CONFORMANCE names the program. `go build` builds it in the specification's folder
`conformance`.
"""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.clients.conftest import Run
from tests.clients.logins import Registry

PROGRAM = os.environ.get("CUMULET_OCI_CONFORMANCE", "")
#: Mounts without `from`: the program's token is for one repository, which does not have the blob.
SKIPPED = 6

pytestmark = pytest.mark.clients


@pytest.mark.skipif(not PROGRAM, reason="CUMULET_OCI_CONFORMANCE names no program")
def test_conformance(registry: Registry, run: Run, tmp_path: Path) -> None:
    login = registry.login("admin user")
    environment = {
        "OCI_REGISTRY": registry.address,
        "OCI_USERNAME": login.user,
        "OCI_PASSWORD": login.password,
        "OCI_VERSION": "1.1",
        "OCI_API_BLOBS_DIGEST_HEADER": "true",
        "OCI_API_BLOBS_UPLOAD_CANCEL": "true",
        "OCI_API_MANIFESTS_DIGEST_HEADER": "true",
        "OCI_API_MANIFESTS_TAG_PARAM": "true",
        "OCI_RESULTS_DIR": str(tmp_path),
        "SSL_CERT_FILE": str(registry.ca),
    }
    run(PROGRAM, environment=environment)
    (suite,) = ElementTree.parse(tmp_path / "junit.xml").getroot()
    found = {kind: int(suite.attrib[kind]) for kind in ("failures", "errors", "skipped")}
    assert found == {"failures": 0, "errors": 0, "skipped": SKIPPED}
    assert int(suite.attrib["tests"]) > 900
