//! The API, described: an OpenAPI 3.1 document made from the code that answers.
//!
//! Every route brings its `Operation` along, so none can be left out; the forms of what is told are those of `wire` and
//! the engine's `outcome`, those of what is read are the engine's and held to its readers by tests; failures come from
//! the table in `problem`. `docs/openapi.json` is the document of a server with nothing configured, and a test compares it.
//! What depends on the configuration is said of the one that holds at the moment: the upstreams there are, and whether
//! a token is needed.

mod document;
mod failures;
mod form;
mod operation;

pub(crate) use document::document;
pub(crate) use form::{OperationOrder, PermitOrder, ReleaseOrder};
pub(crate) use operation::{Answer, Content, Operation, Parameter};

/// Where the document and its page are.
pub(crate) const PATH: &str = "/openapi.json";
