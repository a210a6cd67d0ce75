//! Small parts of HTTP that routes and layers share.

pub(crate) mod caller;
pub(crate) mod cookie;
pub(crate) mod etag;
pub(crate) mod headers;
pub(crate) mod wait;
