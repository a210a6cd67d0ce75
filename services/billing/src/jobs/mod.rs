//! What runs beside the requests.

pub(crate) mod prices;
pub(crate) mod records;
