"""When the changes of groups are published: at once, or together with the change that follows soon."""

from __future__ import annotations

from cumulet.instances.groups.revisions import Changed, Revisions


async def test_a_step_of_a_start_is_published_with_the_change_that_follows() -> None:
    revisions = Revisions(10)
    for key in ("running", "gone"):
        revisions.changed_soon(key)
    assert revisions.newest == 10
    revisions.changed("running")
    revisions.removed("gone", "/gone")
    assert revisions.after(10) == Changed(["running"], ["/gone"])
    revisions.changed_soon("starting")
    await revisions.wait(12, 10)
    assert revisions.after(10) == Changed(["running", "starting"], ["/gone"]), "each change was published once"
