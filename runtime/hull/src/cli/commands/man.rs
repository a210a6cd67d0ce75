//! `hull man`.

use super::super::parse::Parsed;
use super::super::table::COMMANDS;
use super::super::{Global, help, print};
use crate::error::{Code, Error, Result};

pub(in super::super) fn run(_: &Global, parsed: &Parsed) -> Result<i32> {
    let Some(name) = parsed.args.first() else { return print(&help::man(None)) };
    match COMMANDS.iter().find(|c| c.name == name) {
        Some(command) => print(&help::man(Some(command))),
        None => Err(Error::new(Code::Usage, format!("there is no command {name:?}"))),
    }
}
