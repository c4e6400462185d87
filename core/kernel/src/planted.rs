//! Rules that can be broken on purpose, so that the simulator can show that it would notice.
//!
//! Only with the feature `planted`, which the simulator's tests turn on and no release of the product may
//! have: without it [`is`] is the constant `false`, and what it guards is not compiled in.

macro_rules! bugs {
    (
        node { $($(#[$doc:meta])* $name:ident,)* }
        group { $($(#[$group_doc:meta])* $group_name:ident,)* }
        control { $($(#[$control_doc:meta])* $control_name:ident,)* }
        log { $($(#[$log_doc:meta])* $log_name:ident,)* }
        session { $($(#[$session_doc:meta])* $session_name:ident,)* }
        forward { $($(#[$forward_doc:meta])* $forward_name:ident,)* }
        replica { $($(#[$replica_doc:meta])* $replica_name:ident,)* }
        still { $($(#[$still_doc:meta])* $still_name:ident,)* }
        mesh { $($(#[$mesh_doc:meta])* $mesh_name:ident,)* }
        proxy { $($(#[$proxy_doc:meta])* $proxy_name:ident,)* }
        mind { $($(#[$mind_doc:meta])* $mind_name:ident,)* }
        whole { $($(#[$whole_doc:meta])* $whole_name:ident,)* }
        overload { $($(#[$overload_doc:meta])* $overload_name:ident,)* }
    ) => {
        /// One broken rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Bug {
            /// None: every rule is kept.
            None,
            $($(#[$doc])* $name,)*
            $($(#[$group_doc])* $group_name,)*
            $($(#[$control_doc])* $control_name,)*
            $($(#[$log_doc])* $log_name,)*
            $($(#[$session_doc])* $session_name,)*
            $($(#[$forward_doc])* $forward_name,)*
            $($(#[$replica_doc])* $replica_name,)*
            $($(#[$still_doc])* $still_name,)*
            $($(#[$mesh_doc])* $mesh_name,)*
            $($(#[$proxy_doc])* $proxy_name,)*
            $($(#[$mind_doc])* $mind_name,)*
            $($(#[$whole_doc])* $whole_name,)*
            $($(#[$overload_doc])* $overload_name,)*
        }

        impl Bug {
            /// Those of one node, which the simulator of nodes must find; [`Bug::None`] excluded.
            pub const ALL: &[Bug] = &[$(Bug::$name,)*];
            /// Those of replicated groups, which the simulator of groups must find.
            pub const GROUP: &[Bug] = &[$(Bug::$group_name,)*];
            /// Those of the cluster's desired state, which the tests of `control` must find.
            pub const CONTROL: &[Bug] = &[$(Bug::$control_name,)*];
            /// Those of replicated groups in the node's log, which the tests of its truncation must find.
            pub const LOG: &[Bug] = &[$(Bug::$log_name,)*];
            /// Those of forwarded writes, which the tests of `storage` must find.
            pub const SESSION: &[Bug] = &[$(Bug::$session_name,)*];
            /// Those of forwarding between nodes, which the tests of `node` must find.
            pub const FORWARD: &[Bug] = &[$(Bug::$forward_name,)*];
            /// Those of a node in a cluster, which the tests of replicated partitions must find.
            pub const REPLICA: &[Bug] = &[$(Bug::$replica_name,)*];
            /// Those of partitions that stand still, which the tests of replicated partitions must find.
            pub const STILL: &[Bug] = &[$(Bug::$still_name,)*];
            /// Those of services, which the tests of `mesh` must find.
            pub const MESH: &[Bug] = &[$(Bug::$mesh_name,)*];
            /// Those of what a proxy decides, which the tests of `mesh` and `wire` must find.
            pub const PROXY: &[Bug] = &[$(Bug::$proxy_name,)*];
            /// Those of a node's part in the cluster, which the tests of its minds must find.
            pub const MIND: &[Bug] = &[$(Bug::$mind_name,)*];
            /// Those of minds and replicas together, which the tests of whole nodes must find.
            pub const WHOLE: &[Bug] = &[$(Bug::$whole_name,)*];
            /// Those of what a service is spared in an overload, which the tests of `mesh` must find.
            pub const OVERLOAD: &[Bug] = &[$(Bug::$overload_name,)*];
        }
    };
}

bugs! {
node {
    /// An `always` group commits what was only written.
    AckBeforeSync,
    /// A batch is applied, and answered, although its group has not committed it.
    ApplyBeforeCommit,
    /// A sync is said to cover what was written while it ran.
    SyncCoversLater,
    /// A failed sync is retried and its success believed.
    FailedSyncRetried,
    /// `everysec` waits for an hour.
    EverySecLate,
    /// A mark states what was written, not what was synced.
    MarkAhead,
    /// Frames are believed without their checksum.
    SkipCrc,
    /// Damage below the synced mark passes for a torn tail.
    IgnoreSyncedMark,
    /// Replay applies an entry's commands twice.
    ReplayDuplicates,
    /// Replay leaves out an entry's commands.
    ReplaySkips,
    /// Replay draws other chance than the first application did.
    UnseededChance,
    /// Entries are applied at the host's clock instead of their logged time.
    ExpiryByLocalClock,
    /// A read answers from an expiry that is not logged.
    UnloggedExpiryRead,
    /// An entry is stamped with the host's clock although the group's time is ahead of it.
    GroupTimeGoesBack,
    /// The index of a refused proposal is not given back.
    WithdrawnIndexKept,
    /// A refused batch stays where the next one is collected.
    WithdrawnBatchKept,
    /// A write that the full disk refused is acknowledged.
    FullAcknowledged,
    /// Replies leave in the order in which they are ready.
    RepliesOutOfOrder,
    /// EXEC looks at applied changes of watched keys only.
    WatchIgnoresInFlight,
    /// A read from another worker does not wait for its connection's own writes.
    GuestReadOvertakes,
    /// EXEC from another worker does not look at its watches.
    GuestWatchIgnored,
    /// A command on several partitions is answered when the first part is done.
    ScatterAnswersEarly,
    /// After a restart keys go to partitions as if there were one less.
    OtherPartitionNumber,
    /// One push serves a waiting client twice.
    WaiterServedTwice,
    /// The log is truncated although no checkpoint covers it.
    TruncateBeforeCheckpoint,
    /// A checkpoint takes the images of entries that changed after its cut.
    CheckpointNotACut,
    /// A checkpoint forgets which keys were removed.
    TombstoneForgotten,
    /// A body that was read back replaces a value that was written meanwhile.
    FetchedOverNewer,
    /// A command from another worker does not wait behind one of its connection that waits for a body.
    HeldRequestOvertaken,
    /// A body that could not be read passes for a key that is not there.
    FailedFetchIsAbsence,
    /// A long read is not told of keys that are removed before it comes to them.
    LongReadMissesRemovals,
    /// FLUSH begins no new generation.
    GenerationIgnored,
}
group {
    /// A vote leaves before term and vote are synced.
    VoteBeforeSync,
    /// An append is acknowledged to the leader before it is synced.
    AppendAckBeforeSync,
    /// The leader counts its own copy before it is synced.
    LeaderCountsUnsynced,
    /// A read is answered from the leader's own belief that it leads.
    ReadWithoutIndex,
    /// A lease is as long as the holder likes.
    LeaseTooLong,
    /// A voter that has just started does not think of leases that it may have granted.
    VotesAtOnce,
    /// A lease is looked at with the time at which the last turn ended, and not with that of the read.
    LeaseAtOldTime,
    /// Several voters are exchanged at once, without a joint configuration.
    UnjointChange,
    /// A snapshot says nothing of the members at its index.
    SnapshotWithoutMembers,
    /// A snapshot says another term than its last entry has.
    SnapshotWithoutTerm,
    /// A replica whose tail is ambiguous votes.
    RecoveringVotes,
    /// A restart forgets for whom it voted.
    VoteForgotten,
    /// A restart forgets which changes of the members were committed.
    ChangeForgotten,
    /// A snapshot is acknowledged before it is installed.
    SnapshotAckEarly,
    /// The stale tail behind an installed snapshot is believed after a restart.
    StaleTailKept,
    /// A leader commits an entry of an earlier term because a majority has it (Raft, figure 8).
    OldTermCounted,
    /// A leader commits what its own disk has.
    LeaderCountsAlone,
    /// A leader that sleeps takes its lease for valid until it is woken.
    QuiescentLease,
    /// The replica believes the end of a log whose disk may have lost some of it.
    TornTailBelieved,
    /// Whether it led all the while is answered by lease.
    ConfirmByLease,
}
control {
    /// A move takes the old copy away before the new one counts.
    OldCopyGoesFirst,
    /// The number of a learner that was given up is given to the next one.
    ReplicaNumberReused,
    /// A copy may go although those that remain are fewer than promised.
    CopiesNotCounted,
}
log {
    /// A new segment does not repeat the groups' last terms and votes.
    HardStateForgotten,
    /// A reset waits for its sync as long as an entry may.
    ResetUnsynced,
    /// Groups that only a backup needs the log for are to be checkpointed.
    LaggingNamesReserved,
    /// A backup is given entries that a power cut may still take.
    UnsyncedArchived,
    /// After a restart the log is not kept for backups any more.
    ReservationForgottenAtStart,
}
session {
    /// A checkpoint says nothing of the forwarded writes that were done.
    SnapshotWithoutSessions,
    /// A forwarded write is done whether it was seen before or not.
    WindowNotConsulted,
}
forward {
    /// A node takes commands for a partition although the placement has moved on since it last knew it.
    ForwardEpochIgnored,
    /// A node that does not lead hands a command on.
    ForwardedTwice,
    /// What may have been done is sent again without its number.
    RetryWithoutTag,
}
replica {
    /// A leader runs reads on what it has applied, and asks nobody whether it still leads.
    ReadUnconfirmed,
    /// A command is answered although another leader's entry took its index.
    OtherTermAnswered,
    /// A leader answers its entries when its log has them.
    AnsweredBeforeCommit,
    /// A watch on a leader that serves no more still counts as whole.
    WatchOutlivesLeader,
    /// A waiting client whose try is on its way is told that it waits no more, when leadership is lost.
    TriedWaiterReleased,
    /// What was not decided when leadership was lost is forgotten.
    UndecidedForgotten,
}
still {
    /// A partition that stands still proposes what comes from other nodes.
    GuestsProposeWhenStill,
    /// A standstill outlives the term in which it began.
    StillOutlivesTerm,
    /// Some partitions go on before all stand still.
    ConfirmBeforeAllHeld,
}
mesh {
    /// An open breaker never lets a probe through.
    BreakerNeverHalfOpens,
    /// Retries do not ask their budget.
    BudgetIgnored,
    /// What may not be done twice is tried again after it may have been read.
    PostRetried,
    /// An endpoint that only fails is not left out.
    BlackHoleKept,
    /// An endpoint that was removed is still picked.
    StaleEndpointKept,
    /// The instances of a node that membership declared dead stay as healthy as they were.
    DeadNodeServes,
    /// An index is the clock's, wherever that goes.
    IndexFalls,
    /// A registry forgets removals, and passes for one that never saw them.
    RemovalForgotten,
    /// What was heard of a node's earlier life replaces its present one.
    OldLifeBelieved,
    /// News behind a gap are taken, and what was in the gap is never asked for.
    GapIgnored,
    /// What a whole copy of a node's records does not have any more is kept.
    LeftoverKept,
    /// Who waits for the list of services is not told of a change.
    WaiterForgotten,
}
proxy {
    /// A prefix takes paths that go on in the middle of a segment.
    PrefixEndsAnywhere,
    /// The shortest prefix takes a request.
    ShortPrefixFirst,
    /// The report on an endpoint that is gone counts for who took its place.
    ReportOnSuccessor,
    /// The balancer is not told of an endpoint that is left out.
    EjectedStillPicked,
    /// The first address that a request was forwarded for is its client's, whoever said so.
    LeftmostBelieved,
    /// Who came last to a queue goes first.
    QueueServesLast,
    /// What belongs to the connection is forwarded.
    HopByHopForwarded,
    /// What clients say of where they come from is believed.
    ForwardedForBelieved,
    /// A body whose connection ends before it is whole passes for whole.
    CutBodyIsWhole,
    /// Bytes behind a body's end are forwarded with it.
    BodyRunsOver,
    /// The checksum of a PROXY header is not looked at.
    ProxyChecksumIgnored,
}
mind {
    /// A replica is deleted before a checkpoint says so: a restart begins it anew under its old number.
    StopBeforeCheckpoint,
    /// A report about an earlier epoch counts for the present one.
    StaleReportSettles,
    /// A request is answered when it is in the log, and not when it is applied.
    AnswerBeforeApply,
    /// A request that nothing was heard of is asked again under another id.
    RetryIsAnother,
    /// Whoever was removed stays in the control group.
    RemovedStayInGroup,
    /// A partition's new leader gives its group the members that it knows of, however old that is.
    StaleDutyFollowed,
    /// Who is suspected counts as down at once.
    DownAtOnce,
}
whole {
    /// A worker gives its groups members without asking its mind whether it knows enough.
    ChangeUnconfirmed,
    /// Messages of partitions' groups are put into the frame of a message of the control group.
    MailBehindMind,
    /// A snapshot of the control group whose name was lost with a link is not named again when the link is back.
    NameNotRepeated,
    /// A keyspace that promises more says so durably before what was logged under the weaker promise is synced.
    PledgeBeforeSync,
    /// A keyspace promises less before that is durable.
    PledgeWeakAtOnce,
}
overload {
    /// A higher limit is taken for worth it whatever came of it.
    MoreIsAlwaysWorth,
    /// A limit falls below its least.
    LimitBelowLeast,
    /// Latency that grows beyond its usual cuts nothing.
    GrowthIgnored,
    /// What usually is taken for a request stays as short as it ever was.
    UsualNeverRises,
    /// Failures at once and what was given up pass for answers.
    FailureIsSample,
    /// A connection that became a tunnel takes room of the learnt limit for as long as it is there.
    TunnelKeepsRoom,
    /// Who is sent away for a more important request is the most important one that waits.
    DisplacesFirst,
    /// Who would have room too late waits all the same.
    LateWaits,
    /// Who was sent away for another still counts as waiting.
    DisplacedStillCounted,
}
}

#[cfg(feature = "planted")]
mod chosen {
    use core::sync::atomic::{AtomicU8, Ordering};

    use super::Bug;

    static CHOSEN: AtomicU8 = AtomicU8::new(Bug::None as u8);

    /// Breaks this rule from now on, in the whole process.
    pub fn choose(bug: Bug) {
        CHOSEN.store(bug as u8, Ordering::SeqCst);
    }

    /// True if this rule is to be broken.
    #[inline]
    #[must_use]
    pub fn is(bug: Bug) -> bool {
        CHOSEN.load(Ordering::Relaxed) == bug as u8
    }
}

#[cfg(feature = "planted")]
pub use chosen::{choose, is};

/// True if this rule is to be broken: never in this build.
#[cfg(not(feature = "planted"))]
#[inline]
#[must_use]
pub const fn is(_: Bug) -> bool {
    false
}
