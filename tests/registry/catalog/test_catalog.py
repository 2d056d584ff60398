"""Migration of the catalog from its first version, and writes to deleted registries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cumulet.common.database import Database
from cumulet.registry.catalog.records import Manifest, Parts, Upload
from cumulet.registry.catalog.schema import MIGRATIONS
from cumulet.registry.catalog.store import Catalog
from cumulet.registry.oci.errors import OciError
from tests.registry.client import IMAGE, INDEX, descriptor, digest_of

TIME = "2026-11-25T00:00:00.000000Z"


async def test_a_database_of_the_first_version_keeps_its_images_and_references(tmp_path: Path) -> None:
    config, layer = descriptor(b"config", "c"), descriptor(b"layer", "l")
    image = json.dumps({"schemaVersion": 2, "config": config, "layers": [layer, layer], "x": "ü"}).encode()
    index = json.dumps({"schemaVersion": 2, "manifests": [descriptor(image, IMAGE)], "layers": None}).encode()
    first = Database(tmp_path / "registry.db", MIGRATIONS[:1])
    first.open()
    await first.execute(
        "INSERT INTO registry VALUES ('r', '/r', 'r', ?, ?)", (json.dumps({"location": "here"}).encode(), TIME)
    )
    await first.execute("INSERT INTO repository VALUES ('r', 'a', ?, ?)", (TIME, TIME))
    for part in (config, layer):
        await first.execute("INSERT INTO blob_link VALUES ('r', 'a', ?, ?)", (part["digest"], part["size"]))
    for body, kind in ((image, IMAGE), (index, INDEX)):
        await first.execute(
            "INSERT INTO manifest VALUES ('r', 'a', ?, ?, ?, NULL, NULL, 'null', ?)",
            (digest_of(body), kind, body, TIME),
        )
    await first.execute("INSERT INTO tag VALUES ('r', 'a', 'v1', ?, ?, ?)", (digest_of(index), TIME, TIME))
    first.close()

    catalog = Catalog(tmp_path / "registry.db")
    catalog.open()
    found = catalog.manifest("r", "a", "v1")
    assert found is not None
    assert found.body == index
    assert catalog.usage("r") == len(image) + len(index) + config["size"] + layer["size"]
    named = catalog.database.read("SELECT manifest, digest FROM reference ORDER BY manifest, digest")
    assert named == sorted(
        [
            (digest_of(image), config["digest"]),
            (digest_of(image), layer["digest"]),
            (digest_of(index), digest_of(image)),
        ]
    )
    untagged = catalog.database.read("SELECT digest FROM manifest WHERE untagged IS NOT NULL")
    assert untagged == [(digest_of(image),)]
    await catalog.remove_repository("r", "a")
    assert catalog.usage("r") == 0
    catalog.close()


async def test_a_push_to_a_deleted_registry_is_404(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "registry.db")
    catalog.open()
    manifest = Manifest(digest_of(b"m"), IMAGE, b"m", None, None, None, TIME)
    for write in (
        catalog.link_blob("gone", "a", digest_of(b""), 0),
        catalog.put_manifest("gone", "a", manifest, Parts(), ["v1"]),
        catalog.put_upload(Upload("s", "gone", "a", "me", TIME)),
    ):
        with pytest.raises(OciError) as raised:
            await write
        assert (raised.value.status, raised.value.code) == (404, "NAME_UNKNOWN")
    catalog.close()
