"""Entity → shard. This never changes: every store written so far depends on it.

The shard of an entity is CRC-32 (ISO 3309, as in zlib) of ``type/id`` in UTF-8, modulo the app's
shard count, as a decimal text; of a type that asks for a host group it is ``group:number``. A
dedicated entity is a shard of its own, named ``type/id``. CRC-32 is in every language's standard
library, costs 0.1 µs and spreads evenly over 256 shards.
"""

from __future__ import annotations

from zlib import crc32


def entity_key(type_name: str, entity_id: str) -> str:
    """Return ``type/id``, the entity's key everywhere."""
    return f"{type_name}/{entity_id}"


def shard_of(key: str, shards: int, group: str = "") -> str:
    """Return the shard of a shared entity.

    Args:
        key: ``type/id``.
        shards: The app's shard count.
        group: Host group of its type; empty for the default one.
    """
    number = str(crc32(key.encode()) % shards)
    return f"{group}:{number}" if group else number


def group_of(shard: str) -> str:
    """Return the host group of a shard; empty for the default one and for dedicated entities."""
    if "/" in shard:
        return ""
    return shard.rpartition(":")[0]
