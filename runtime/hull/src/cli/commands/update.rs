//! `hull update`.

use super::super::Global;
use super::super::parse::Parsed;
use crate::error::Result;

pub(in super::super) fn run(_: &Global, _: &Parsed) -> Result<i32> {
    Ok(0)
}
