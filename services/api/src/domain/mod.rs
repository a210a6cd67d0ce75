//! The rules of the domain, without HTTP and without SQL.

pub(crate) mod authorize;
pub(crate) mod email;
pub(crate) mod instance;
pub(crate) mod name;
pub(crate) mod password;
pub(crate) mod secret;
pub(crate) mod text;
pub(crate) mod workspace;
