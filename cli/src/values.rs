//! Values of the command line that are more than a text: what cannot be right is told before a server is asked.

use std::str::FromStr;

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};

/// Phases of a workspace.
pub(crate) const PHASES: [&str; 7] =
    ["Pending", "Imagebuild", "Creating", "Initializing", "Running", "Stopping", "Stopped"];

/// Id or name of a workspace.
pub(crate) fn workspace(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("it is empty: `berth list` shows ids and names".to_owned());
    }
    Ok(text.to_owned())
}

/// `NAME=VALUE`; `NAME` alone takes the value it has here, as with other programs of this kind.
pub(crate) fn env(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some(("", _)) => Err("there is no name before the =: write NAME=VALUE".to_owned()),
        Some(_) => Ok(text.to_owned()),
        None => match std::env::var(text) {
            Ok(value) => Ok(format!("{text}={value}")),
            Err(_) => Err("it is not set here: write NAME=VALUE".to_owned()),
        },
    }
}

/// A time: RFC 3339, or a date, which begins at midnight in UTC.
pub(crate) fn time(text: &str) -> Result<String, String> {
    let time = DateTime::parse_from_rfc3339(text).map(|time| time.with_timezone(&Utc)).ok().or_else(|| {
        let midnight = text.parse::<NaiveDate>().ok()?.and_hms_opt(0, 0, 0)?;
        Some(midnight.and_utc())
    });
    let wrong = || "write a date as 2026-11-01 (its midnight, UTC) or a time as 2026-11-01T08:00:00Z".to_owned();
    Ok(time.ok_or_else(wrong)?.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

/// A port here and the port in a workspace that it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortPair {
    /// 0: any that is free.
    pub(crate) local: u16,
    pub(crate) remote: u16,
}

impl FromStr for PortPair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (local, remote) = text.split_once(':').unwrap_or((text, text));
        let number = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|_| digits).ok_or_else(|| format!("{text:?} is not a port, 1 to 65535"))
        };
        let wrong = |why| format!("{why}: write PORT or LOCAL:REMOTE");
        let (local, remote) = (number(local).map_err(wrong)?, number(remote).map_err(wrong)?);
        if remote == 0 {
            return Err(wrong("nothing listens on port 0".to_owned()));
        }
        Ok(Self { local, remote })
    }
}

#[cfg(test)]
mod tests {
    use berth_api_types::public::Phase;

    use super::*;

    #[test]
    fn phases_are_those_of_the_api() {
        for phase in PHASES {
            let parsed: Phase = serde_json::from_value(phase.into()).unwrap();
            assert_eq!(format!("{parsed:?}"), phase);
        }
    }

    #[test]
    fn ports_are_numbers_of_ports() {
        let pair = |local, remote| Ok(PortPair { local, remote });
        assert_eq!("8080".parse::<PortPair>(), pair(8080, 8080));
        assert_eq!("0:80".parse::<PortPair>(), pair(0, 80));
        for wrong in ["", "x", "0", "1:0", ":80", "80:", "1:2:3", " 80", "+80", "80/tcp", "65536"] {
            assert!(wrong.parse::<PortPair>().unwrap_err().ends_with("write PORT or LOCAL:REMOTE"), "{wrong}");
        }
    }

    #[test]
    fn times_are_dates_too() {
        assert_eq!(time("2026-11-01").unwrap(), "2026-11-01T00:00:00Z");
        assert_eq!(time("2026-11-01T10:00:00.5+02:00").unwrap(), "2026-11-01T08:00:00.500Z");
        for wrong in ["", "2026", "yesterday", "2026-13-01", "2026-11-01T10:00:00"] {
            assert!(time(wrong).unwrap_err().contains("2026-11-01T08:00:00Z"), "{wrong}");
        }
    }

    #[test]
    fn variables_have_names() {
        assert_eq!(env("A=b=c").unwrap(), "A=b=c");
        assert!(env("CARGO_PKG_NAME").unwrap().starts_with("CARGO_PKG_NAME="));
        assert!(env("=b").is_err() && env("BERTH_NOT_SET_ANYWHERE").is_err());
    }
}
