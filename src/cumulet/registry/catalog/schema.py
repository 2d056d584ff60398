"""The schema of the registry's database, as a list of migrations.

`locks` is a bit mask (`locks.Attributes`). `reference` holds the blobs and manifests that each manifest names, so that a
push and a collection can decide in one transaction. `stored` counts each blob once per registry, and `usage` sums their
sizes. Triggers maintain both, so that no write can miss them.
"""

from __future__ import annotations

from cumulet.registry.catalog import child_resources

#: Events are deleted with their registry. `due` is the time of the next attempt, or null after the last one.
_WEBHOOK_EVENTS = """
    CREATE TABLE webhook_event (
        id TEXT PRIMARY KEY, registry TEXT NOT NULL REFERENCES registry (key) ON DELETE CASCADE,
        webhook TEXT NOT NULL COLLATE NOCASE, sequence INTEGER NOT NULL, content BLOB NOT NULL,
        request BLOB, response BLOB, attempts INTEGER NOT NULL DEFAULT 0, due REAL
    );
    CREATE INDEX webhook_event_due ON webhook_event (due) WHERE due IS NOT NULL;
    CREATE INDEX webhook_event_webhook ON webhook_event (registry, webhook, sequence);
    """

MIGRATIONS = [
    """
    CREATE TABLE registry (
        key TEXT PRIMARY KEY, id TEXT NOT NULL, name TEXT NOT NULL, resource BLOB NOT NULL, created TEXT NOT NULL
    );
    CREATE TABLE repository (
        registry TEXT NOT NULL REFERENCES registry (key) ON DELETE CASCADE,
        name TEXT NOT NULL, created TEXT NOT NULL, updated TEXT NOT NULL,
        PRIMARY KEY (registry, name)
    ) WITHOUT ROWID;
    CREATE TABLE blob_link (
        registry TEXT NOT NULL, repository TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
        PRIMARY KEY (registry, repository, digest),
        FOREIGN KEY (registry, repository) REFERENCES repository (registry, name) ON DELETE CASCADE
    ) WITHOUT ROWID;
    CREATE INDEX blob_link_digest ON blob_link (digest);
    CREATE TABLE manifest (
        registry TEXT NOT NULL, repository TEXT NOT NULL, digest TEXT NOT NULL,
        media_type TEXT NOT NULL, body BLOB NOT NULL, subject TEXT, artifact_type TEXT, annotations BLOB,
        created TEXT NOT NULL,
        PRIMARY KEY (registry, repository, digest),
        FOREIGN KEY (registry, repository) REFERENCES repository (registry, name) ON DELETE CASCADE
    );
    CREATE INDEX manifest_subject ON manifest (registry, repository, subject) WHERE subject IS NOT NULL;
    CREATE TABLE tag (
        registry TEXT NOT NULL, repository TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL,
        created TEXT NOT NULL, updated TEXT NOT NULL,
        PRIMARY KEY (registry, repository, name),
        FOREIGN KEY (registry, repository, digest) REFERENCES manifest (registry, repository, digest) ON DELETE CASCADE
    ) WITHOUT ROWID;
    CREATE INDEX tag_digest ON tag (registry, repository, digest);
    CREATE TABLE upload (
        session TEXT PRIMARY KEY, registry TEXT NOT NULL REFERENCES registry (key) ON DELETE CASCADE,
        repository TEXT NOT NULL, principal TEXT NOT NULL, started TEXT NOT NULL
    );
    """,
    """
    ALTER TABLE repository ADD COLUMN locks INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE tag ADD COLUMN locks INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE manifest ADD COLUMN locks INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE manifest ADD COLUMN untagged TEXT;
    ALTER TABLE manifest ADD COLUMN deleted TEXT;
    UPDATE manifest SET untagged = created WHERE NOT EXISTS (
        SELECT 1 FROM tag WHERE tag.registry = manifest.registry AND tag.repository = manifest.repository
        AND tag.digest = manifest.digest
    );
    CREATE INDEX manifest_deleted ON manifest (registry, repository, deleted) WHERE deleted IS NOT NULL;
    CREATE TABLE deleted_tag (
        registry TEXT NOT NULL, repository TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL,
        deleted TEXT NOT NULL,
        PRIMARY KEY (registry, repository, name, digest),
        FOREIGN KEY (registry, repository, digest) REFERENCES manifest (registry, repository, digest) ON DELETE CASCADE
    ) WITHOUT ROWID;

    ALTER TABLE upload ADD COLUMN algorithm TEXT NOT NULL DEFAULT 'sha256';
    CREATE TABLE reference (
        registry TEXT NOT NULL, repository TEXT NOT NULL, digest TEXT NOT NULL, manifest TEXT NOT NULL,
        PRIMARY KEY (registry, repository, digest, manifest),
        FOREIGN KEY (registry, repository, manifest) REFERENCES manifest (registry, repository, digest) ON DELETE CASCADE
    ) WITHOUT ROWID;
    CREATE INDEX reference_manifest ON reference (registry, repository, manifest);
    INSERT OR IGNORE INTO reference
        SELECT registry, repository, json_extract(part.value, '$.digest'), manifest.digest
        FROM manifest, json_each(CAST(body AS TEXT)) AS field, json_each(
            CASE field.type WHEN 'array' THEN field.value ELSE json_array(json(field.value)) END
        ) AS part
        WHERE field.key IN ('config', 'layers', 'blobs', 'manifests') AND part.type = 'object'
            AND json_type(part.value, '$.digest') = 'text';

    CREATE TABLE stored (
        registry TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, links INTEGER NOT NULL,
        PRIMARY KEY (registry, digest)
    ) WITHOUT ROWID;
    CREATE TABLE usage (registry TEXT PRIMARY KEY, bytes INTEGER NOT NULL, quota INTEGER) WITHOUT ROWID;
    INSERT INTO stored SELECT registry, digest, max(size), count(*) FROM blob_link GROUP BY registry, digest;
    INSERT INTO usage SELECT key,
        (SELECT ifnull(sum(size), 0) FROM stored WHERE stored.registry = key)
        + (SELECT ifnull(sum(length(body)), 0) FROM manifest WHERE manifest.registry = key), NULL FROM registry;
    CREATE TRIGGER registry_added AFTER INSERT ON registry BEGIN
        INSERT OR IGNORE INTO usage VALUES (new.key, 0, NULL);
    END;
    CREATE TRIGGER registry_removed AFTER DELETE ON registry BEGIN
        DELETE FROM usage WHERE registry = old.key;
    END;
    CREATE TRIGGER blob_linked AFTER INSERT ON blob_link BEGIN
        INSERT INTO stored VALUES (new.registry, new.digest, new.size, 1)
            ON CONFLICT (registry, digest) DO UPDATE SET links = links + 1;
    END;
    CREATE TRIGGER blob_unlinked AFTER DELETE ON blob_link BEGIN
        UPDATE stored SET links = links - 1 WHERE registry = old.registry AND digest = old.digest;
        DELETE FROM stored WHERE registry = old.registry AND digest = old.digest AND links = 0;
    END;
    CREATE TRIGGER blob_stored AFTER INSERT ON stored BEGIN
        UPDATE usage SET bytes = bytes + new.size WHERE registry = new.registry;
    END;
    CREATE TRIGGER blob_dropped AFTER DELETE ON stored BEGIN
        UPDATE usage SET bytes = bytes - old.size WHERE registry = old.registry;
    END;
    CREATE TRIGGER manifest_added AFTER INSERT ON manifest BEGIN
        UPDATE usage SET bytes = bytes + length(new.body) WHERE registry = new.registry;
    END;
    CREATE TRIGGER manifest_removed AFTER DELETE ON manifest BEGIN
        UPDATE usage SET bytes = bytes - length(old.body) WHERE registry = old.registry;
    END;
    """,
    child_resources.SCHEMA,
    _WEBHOOK_EVENTS,
]
