"""Whether an app may start on a store: it must be able to read what earlier releases wrote there."""

from __future__ import annotations

from remora.app import App
from remora.errors import StoreMismatch
from remora.journal import Store
from remora.schema.compare import Finding, compare, incompatible, merge
from remora.schema.describe import describe, from_text, to_text

TOLD_MAX = 3
"""Findings that the message holds; all of them are in ``details``."""


async def admit(app: App, store: Store) -> None:
    """Refuse an app that cannot read what the store may hold, and keep the description of one that can.

    The store is written only if the description has changed. It is written before the app runs, so
    that there is never an event that no description knows.

    Args:
        app: The app that is about to run.
        store: Its store, open.

    Raises:
        StoreMismatch: The app cannot read all that the store's description tells of.
    """
    kept = await store.schema()
    new = describe(app)
    if kept is None:
        await store.set_schema(to_text(new))
        return
    old = from_text(kept, f"The store {store.url}")
    findings = incompatible(compare(old, new))
    if findings:
        raise refused(store.url, findings)
    text = to_text(merge(old, new))
    if text != kept:
        await store.set_schema(text)


def refused(where: str, findings: list[Finding]) -> StoreMismatch:
    """Return the error that tells what an app cannot read.

    Args:
        where: The store's URL.
        findings: What is incompatible, at least one.
    """
    told = " ".join(str(finding) for finding in findings[:TOLD_MAX])
    more = len(findings) - TOLD_MAX
    msg = (
        f"{where} may hold data that this release of the app cannot read. {told}"
        f"{f' And {more} more.' if more > 0 else ''} `remora schema check MODULE:APP --store URL` shows all."
    )
    details = [{"argument": one.where, "problem": f"{one.what} {one.fix}".strip()} for one in findings]
    return StoreMismatch(msg, details=details)
