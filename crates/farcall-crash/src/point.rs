//! The closed list of boundaries, in the order in which a call passes them.
//!
//! A name says what has just been done, or what is about to be (`…Begun`). What lies between two neighbours is one step
//! that the system makes whole, or that has points of its own.

macro_rules! points {
    ($($(#[$doc:meta])* $point:ident = $name:literal,)*) => {
        /// A boundary.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Point {
            $($(#[$doc])* $point,)*
        }

        impl Point {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$point,)*];

            /// What a trap calls it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)*
                }
            }
        }
    };
}

points! {
    /// A call file was read, and nothing done with it.
    FileRead = "file-read",
    /// A rejected file's documents are durable, without names.
    RejectionWritten = "rejection-written",
    /// A rejected file's response has its name.
    RejectionAnswered = "rejection-answered",
    /// A rejected file's problem file has its name.
    ProblemNamed = "problem-named",
    /// A rejected file left the inbox.
    FileRejected = "file-rejected",

    /// A large body's bytes are durable under a temporary name.
    BodyWritten = "body-written",
    /// A large body has its name, its row not yet.
    BodyNamed = "body-named",
    /// A batch is complete but for its commit.
    BatchSealed = "batch-sealed",
    InsertBegun = "insert-begun",
    InsertDurable = "insert-durable",
    StartBegun = "start-begun",
    StartDurable = "start-durable",
    SettleBegun = "settle-begun",
    SettleDurable = "settle-durable",
    /// A callback is inserted with the end of its call.
    CallbackBegun = "callback-begun",
    CallbackDurable = "callback-durable",
    /// An upstream asks everybody to wait.
    CloseBegun = "close-begun",
    CloseDurable = "close-durable",
    FiledBegun = "filed-begun",
    FiledDurable = "filed-durable",
    /// Calls that ended long ago are about to be forgotten.
    PruneBegun = "prune-begun",
    PruneDurable = "prune-durable",
    /// A large body's row is gone, its file not yet.
    BodyUnneeded = "body-unneeded",
    BodyRemoved = "body-removed",
    /// A file that was kept long enough is gone, others of its name may not be.
    OldFileRemoved = "old-file-removed",
    /// The log is about to be copied into the database.
    CheckpointBegun = "checkpoint-begun",
    CheckpointDone = "checkpoint-done",

    /// A durable call's submitter is about to be told.
    Acknowledging = "acknowledging",
    /// A taken file left the inbox.
    FileRemoved = "file-removed",

    /// An attempt's task runs; it has no connection yet.
    AttemptBegun = "attempt-begun",
    FirstByteSent = "first-byte-sent",
    /// The last byte left our buffers.
    RequestSent = "request-sent",
    FirstByteReceived = "first-byte-received",
    /// The attempt is over, and nobody knows.
    AttemptEnded = "attempt-ended",

    /// Response and request are durable, without names.
    ResponseWritten = "response-written",
    /// An earlier file of the name was moved aside.
    EarlierMoved = "earlier-moved",
    ResponseNamed = "response-named",
    /// The response's name is durable.
    ResponseDurable = "response-durable",
    RequestNamed = "request-named",
    /// Both names are durable.
    RequestDurable = "request-durable",

    /// A callback's program is about to be started.
    CallbackLaunched = "callback-launched",
    /// A callback's program ended, and nobody knows.
    CallbackEnded = "callback-ended",

    /// A new epoch is about to be committed.
    TakeOverBegun = "take-over-begun",
    TakeOverDurable = "take-over-durable",
    /// Body files without a row are gone.
    BodiesSwept = "bodies-swept",
    /// Steady time goes on from what the store keeps.
    ClockKept = "clock-kept",
    /// The files of stored calls have left the inbox, half-written ones are gone.
    FilesSettled = "files-settled",
    /// The dispatcher stands as it stood; nothing runs yet.
    Rebuilt = "rebuilt",

    /// A drained engine is about to close its store.
    StoreClosing = "store-closing",
}
