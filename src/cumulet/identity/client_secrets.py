"""Creating the record of a client secret: its validity period, its hash and its hint."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from cumulet.common import clock
from cumulet.common.secrets import hash_of, new_text
from cumulet.identity.store import Secret

__all__ = ["new_secret", "new_text"]

_LIFE = timedelta(days=365)


async def new_secret(
    application_id: str,
    text: str,
    *,
    principal_id: str | None = None,
    display_name: str | None = None,
    starts: datetime | None = None,
    ends: datetime | None = None,
) -> Secret:
    """Return the record of a secret. By default it is valid for a year from now."""
    starts = starts or clock.now()
    return Secret(
        key_id=str(uuid.uuid4()),
        application_id=application_id,
        display_name=display_name,
        hint=text[:3],
        hash=await hash_of(text),
        starts=clock.rfc3339(starts),
        ends=clock.rfc3339(ends or starts + _LIFE),
        principal_id=principal_id,
    )
