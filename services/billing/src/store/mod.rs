//! All SQL of the service.

pub(crate) mod prices;
pub(crate) mod records;
pub(crate) mod usage;
