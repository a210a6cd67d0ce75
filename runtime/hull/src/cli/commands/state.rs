//! `hull state`.

use super::super::parse::Parsed;
use super::super::{Global, print_json};
use crate::container;
use crate::error::Result;

pub(in super::super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    print_json(&container::report(&global.root, parsed.arg(0))?)
}
