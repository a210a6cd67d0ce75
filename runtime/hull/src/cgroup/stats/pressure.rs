//! Pressure stall information, which version 2 counts.

use serde::Serialize;

#[derive(Debug, Default, Serialize)]
pub(super) struct Pressure {
    some: Line,
    full: Line,
}

#[derive(Debug, Default, Serialize)]
struct Line {
    avg10: f64,
    avg60: f64,
    avg300: f64,
    total: u64,
}

impl Pressure {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut out = Self::default();
        for line in text.lines() {
            let mut parts = line.split_whitespace();
            let target = match parts.next()? {
                "some" => &mut out.some,
                "full" => &mut out.full,
                _ => return None,
            };
            for part in parts {
                let (key, value) = part.split_once('=')?;
                match key {
                    "avg10" => target.avg10 = value.parse().ok()?,
                    "avg60" => target.avg60 = value.parse().ok()?,
                    "avg300" => target.avg300 = value.parse().ok()?,
                    "total" => target.total = value.parse().ok()?,
                    _ => {}
                }
            }
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::Pressure;

    #[test]
    fn pressure_lines_are_read() {
        let p = Pressure::parse(
            "some avg10=1.50 avg60=0.00 avg300=0.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
        )
        .unwrap();
        assert!((p.some.avg10 - 1.5).abs() < f64::EPSILON);
        assert_eq!(p.full.total, 7);
    }
}
