"""Every setting of the platform: unit, default, reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one app. Immutable; pass ``App(..., settings=Settings(...))`` to change one."""

    shards: int = 256
    """Shards per app, fixed when the store is created. Many more than hosts, so that each host's
    part can be divided evenly (Akka's rule of thumb is ten per host)."""
    lease_ttl_s: float = 2.0
    """Seconds a host may answer from memory after it began its last successful renewal. Shorter
    finds frozen hosts sooner, longer tolerates slower stores."""
    lease_margin_s: float = 0.25
    """Seconds before its lease ends at which a host already stops answering (timer resolution and
    a late wake-up of its own loop)."""
    channel_batch_max: int = 512
    """Commands per call to a host: a call costs about 1 ms whatever it carries."""
    channel_calls_max: int = 4
    """Calls to one host in flight: enough to keep it busy while others wait for commits."""
    in_flight_max: int = 8192
    """Commands one client has under way at once; more get ``Overloaded``."""
    channel_credits: int = 4096
    """Commands one client may have under way at one host; what is more waits in the client. Several
    times what keeps a host busy, and few enough that one client cannot fill a host by itself. A host
    that falls behind grants less."""
    queue_age_max_s: float = 5.0
    """Seconds that the oldest commit, activation or turn of the loop may be late before a host refuses
    new work (``Overloaded``): half the default deadline, since what comes later would be answered to
    nobody."""
    memory_max_share: float = 0.8
    """Share of its container's (or the machine's) memory that one host process may have resident before
    it refuses new work: beyond that the kernel, or Ray at 0.95, kills it. Divide it by the number of hosts
    where several share a container."""
    poll_s: float = 5.0
    """Seconds a host keeps a call open while it has nothing to answer."""
    commit_rows_max: int = 4096
    """Entries per commit: bounds the time a commit holds the store's write lock."""
    commit_timeout_s: float = 10.0
    """Seconds after which a commit counts as of unknown outcome."""
    payload_bytes_max: int = 1 << 20
    """Largest arguments, event, reply or state, in bytes. Larger things belong in a blob store,
    their address in the entity."""
    outbox_rows_max: int = 20_000
    """Undelivered outbox rows per host before new commands are held back."""
    held_max: int = 8192
    """Commands a host holds back, in order, while its outbox is full; more get ``Overloaded``."""
    outbox_in_flight_max: int = 1024
    """Durable sends a host has under way at once."""
    outbox_retry_min_s: float = 0.05
    """First pause before a refused durable send is tried again; doubles up to the next."""
    outbox_retry_max_s: float = 5.0
    """Longest pause between tries of a durable send."""
    live_max: int = 1_000_000
    """Live entities per host; above, those that are used least leave memory. A million small ones take about 2 GB."""
    live_bytes_max: int = 2 << 30
    """Estimated bytes of live entities per host; above, those that are used least leave memory. Machines have
    4 GB per CPU as a rule and there is a host per CPU: half of that, the rest is for everything else."""
    recoveries_max: int = 256
    """Entities a host recovers at once: bounds what a failover asks of it, and is what makes one read worth its trip."""
    recoveries_cluster_max: int = 2048
    """Entities all hosts together recover at once: eight hosts in full, each of more gets its part. Bounds what a
    failover asks of the store, however many hosts there are (a host may always recover one)."""
    remembered_per_s: float = 1000.0
    """Entities with remember=True that a host activates per second after it was given their shards: a tenth of what it
    can (Akka's limit is 50 a second for each shard)."""
    reminder_tick_s: float = 0.25
    """Seconds between looks for due reminders: their resolution."""
    blocked_s: float = 1.0
    """Seconds a handler may keep its host's loop without awaiting before it is named in the log: many
    times what a command takes, and well before callers give up."""
    hung_s: float = 30.0
    """Seconds a handler may keep its host's loop before the host's process is ended and the handler blamed for it:
    three times the default deadline, so nobody waits for it any more, while all other entities of the host do."""
    memory_end_share: float = 0.9
    """Share of the container's (or machine's) memory in use, by everybody, at which a process is ended that owes half of
    its own to one handler that runs: before the kernel or Ray (at 0.95) kills it, which would not say whose fault it was."""
    supervisor_ask_s: float = 0.5
    """Seconds that an entity which failed waits for its supervisor's answer before its declared rules decide: hundreds of
    times an answer's way, and no longer than a failover may take."""
    threads_max: int = 16
    """Handlers with run_in="thread" that run at once per host; others wait their turn."""
    hand_off_s: float = 5.0
    """Longest wait for running handlers when a shard moves, and again for the next host to take what
    travels, in seconds: what was not sent by then is read from the journal."""
    hand_off_shards: int = 4
    """Most shards that move together: each waits for all of them, and each move costs some writes to the store."""
    hand_off_share_max: float = 0.01
    """Share of all shards that moves together (one always does): what nobody serves meanwhile is then no more of the
    load than a 99th percentile leaves out. With 256 shards that is two."""
    hand_off_bytes_max: int = 4 << 20
    """Bytes that travel in one call when a shard moves: some thousand entities, and a pause of
    milliseconds for the hosts at both ends. An entity that is larger is read from the journal."""
    hand_off_kept_bytes_max: int = 256 << 20
    """Bytes of images that a host keeps for shards which are not its own yet; what comes beyond is not kept."""
    hand_off_keep_s: float = 30.0
    """Seconds they are kept: many times what a move takes."""
    rebalance_s: float = 1.0
    """Seconds between rebalance rounds."""
    rebalance_max: int = 64
    """Shards moved per round: bounds what one round disturbs."""
    rebalance_share_max: float = 0.25
    """Share of all shards moved per round to even hosts out: with few shards, the bound above is no bound."""
    leader_ttl_s: float = 1.0
    """Seconds without a renewal after which a standby registry leads. Shorter than the hosts' lease: a
    mistaken change of leader costs nothing but some work, since terms fence the former one's writes."""
    unreachable_s: float = 10.0
    """Seconds a host is reported as unreachable before it is fenced although it renews its lease. Longer than what a
    busy machine or a long garbage collection takes: moving its entities away is the greater disturbance."""
    drain_s: float = 60.0
    """Longest wait for a host to be emptied, in seconds; then whoever asked is told what is left, and emptying goes on."""
    node_look_s: float = 1.0
    """Seconds between looks at Ray's table of nodes: how soon new nodes are used and leaving ones are emptied."""
    ready_within_s: float = 150.0
    """Longest that a start waits for what was declared under ``depends_on`` and ``ready_when``, in seconds, before it gives
    up and says for what: time for a large model to load, and less than whoever starts an app waits in all."""
    stop_s: float = 30.0
    """Longest that a clean stop takes to close types and hosts one after the other, in seconds: several times
    ``hand_off_s``, the bound for what runs in each. What is left then is ended as a crash would end it."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                msg = f"Settings.{name} must be above 0, not {getattr(self, name)!r}."
                raise ValueError(msg)
        if self.hung_s < self.blocked_s:
            msg = "Settings.hung_s must not be below blocked_s: a handler is named before its process is ended."
            raise ValueError(msg)
        for name in ("rebalance_share_max", "hand_off_share_max"):
            if getattr(self, name) > 1:
                msg = f"Settings.{name} is a share and at most 1, not {getattr(self, name)!r}."
                raise ValueError(msg)
        if self.lease_margin_s * 2 >= self.lease_ttl_s:
            msg = "Settings.lease_margin_s must be under half of lease_ttl_s, or a lease is never live."
            raise ValueError(msg)
