//! `hull kill`.

use super::super::parse::Parsed;
use super::super::{Global, signals};
use crate::container::delete;
use crate::error::{Error, Result};

pub(in super::super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    let name = parsed.args.get(1).map(String::as_str).filter(|name| !name.is_empty()).unwrap_or("SIGTERM");
    let signal = signals::parse(name).ok_or_else(|| Error::usage(name, format!("unknown signal {name:?}")))?;
    delete::kill(&global.root, parsed.arg(0), signal, parsed.is("all"))?;
    Ok(0)
}
