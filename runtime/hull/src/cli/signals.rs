//! Signals by name.

const NAMES: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", 34),
    ("RTMAX", 64),
];

/// The number of a signal given by number or name, with or without `SIG`, also `RTMIN+n` and `RTMAX-n`.
pub(super) fn parse(text: &str) -> Option<i32> {
    if let Some(number) = crate::files::parse_unsigned::<i32>(text) {
        return (0..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let (base, offset) = match (name.split_once('+'), name.split_once('-')) {
        (Some((base, n)), _) if base == "RTMIN" => (base, crate::files::parse_unsigned::<i32>(n)?),
        (_, Some((base, n))) if base == "RTMAX" => (base, crate::files::parse_unsigned::<i32>(n)?.checked_neg()?),
        _ => (name, 0),
    };
    let number = NAMES.iter().find(|(known, _)| *known == base)?.1.checked_add(offset)?;
    (1..=64).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn signals_are_read_by_number_and_name() {
        for (text, number) in [("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("0", 0)] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for bad in ["", "SIG", "65", "NOPE", "RTMIN+99", "-1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
