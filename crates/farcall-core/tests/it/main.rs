//! Properties of the core, each against a model that shares no code with it.

mod deadlines;
mod dispatcher;
mod lanes;
mod limits;
mod many;
mod model;
