//! `hull start`.

use super::super::Global;
use super::super::parse::Parsed;
use crate::container::start;
use crate::error::Result;

pub(in super::super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    for id in &parsed.args {
        start::start(&global.root, id)?;
    }
    Ok(0)
}
