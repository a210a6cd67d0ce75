//! All SQL of the service.

pub(crate) mod credentials;
