//! `hull completion`.

use super::super::parse::Parsed;
use super::super::{Global, help, print};
use crate::error::{Error, Result};

pub(in super::super) fn run(_: &Global, parsed: &Parsed) -> Result<i32> {
    let shell = parsed.arg(0);
    match help::completion(shell) {
        Some(text) => print(&text),
        None => Err(Error::usage(shell, format!("completion for {shell:?}: bash, zsh or fish"))),
    }
}
