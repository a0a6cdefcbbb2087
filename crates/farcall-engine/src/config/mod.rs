//! What the user configures: the typed result here, how it is read in the modules below.

mod model;

pub use model::{CommandLine, Config, HeaderCaps, Inbox, Listen, Server, StoreSettings, Success, Upstream};
