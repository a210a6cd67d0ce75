//! Limits of block devices as properties of a unit.

use super::dbus::Value;
use crate::files;
use crate::spec::resources::{BlockIo, ThrottleDevice};

type Property = (String, Value);

/// What `io.max` calls a limit, and how systemd does.
const LIMITS: &[(&str, &str)] = &[
    ("rbps", "IOReadBandwidthMax"),
    ("wbps", "IOWriteBandwidthMax"),
    ("riops", "IOReadIOPSMax"),
    ("wiops", "IOWriteIOPSMax"),
];

/// systemd takes devices by path only.
fn device(number: &str) -> String {
    format!("/dev/block/{number}")
}

/// `linux.resources.blockIO`; version 1 has no property for operations a second.
pub(super) fn of_block_io(io: &BlockIo, unified: bool) -> Vec<Property> {
    let mut out = Vec::new();
    let weight = |n: u16| if unified { super::v2::io_weight(n) } else { u64::from(n) };
    if let Some(n) = io.weight.filter(|w| *w != 0) {
        out.push(((if unified { "IOWeight" } else { "BlockIOWeight" }).to_owned(), Value::U64(weight(n))));
    }
    let weights = io
        .weight_device
        .iter()
        .filter_map(|d| d.weight.filter(|w| *w != 0).map(|n| (device(&format!("{}:{}", d.major, d.minor)), weight(n))));
    let rates = |devices: &[ThrottleDevice]| -> Vec<(String, u64)> {
        let rate = |d: &ThrottleDevice| if d.rate == 0 { u64::MAX } else { d.rate };
        devices.iter().map(|d| (device(&format!("{}:{}", d.major, d.minor)), rate(d))).collect()
    };
    let names = if unified {
        ["IODeviceWeight", "IOReadBandwidthMax", "IOWriteBandwidthMax", "IOReadIOPSMax", "IOWriteIOPSMax"]
    } else {
        ["BlockIODeviceWeight", "BlockIOReadBandwidth", "BlockIOWriteBandwidth", "", ""]
    };
    let lists = [
        weights.collect(),
        rates(&io.throttle_read_bps_device),
        rates(&io.throttle_write_bps_device),
        rates(&io.throttle_read_iops_device),
        rates(&io.throttle_write_iops_device),
    ];
    let told = names.into_iter().zip(lists).filter(|(name, list)| !name.is_empty() && !list.is_empty());
    out.extend(told.map(|(name, list)| (name.to_owned(), Value::Rates(list))));
    out
}

/// `io.weight`: a number, perhaps after `default`, or a device and its number.
pub(super) fn of_io_weight(text: &str) -> Vec<Property> {
    text.lines()
        .filter_map(|line| {
            let (of, number) = line.trim().split_once(' ').unwrap_or(("default", line.trim()));
            let number = files::parse_unsigned(number.trim())?;
            Some(match of {
                "default" => ("IOWeight".to_owned(), Value::U64(number)),
                of => ("IODeviceWeight".to_owned(), Value::Rates(vec![(device(of), number)])),
            })
        })
        .collect()
}

/// `io.max`: a device and its limits, `8:16 rbps=2097152 wiops=max`.
pub(super) fn of_io_max(text: &str) -> Vec<Property> {
    let limits = |line: &str| {
        let mut words = line.split_whitespace();
        let of = device(words.next()?);
        let limit = move |word: &str| {
            let (key, number) = word.split_once('=')?;
            let (_, name) = LIMITS.iter().find(|(known, _)| *known == key)?;
            let number = if number == "max" { u64::MAX } else { files::parse_unsigned(number)? };
            Some(((*name).to_owned(), Value::Rates(vec![(of.clone(), number)])))
        };
        Some(words.filter_map(limit).collect::<Vec<_>>())
    };
    text.lines().filter_map(limits).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::resources::WeightDevice;

    fn rates(name: &str, rate: u64) -> Property {
        (name.to_owned(), Value::Rates(vec![("/dev/block/8:16".to_owned(), rate)]))
    }

    #[test]
    fn all_limits_that_systemd_knows_are_told() {
        let of = |rate| vec![ThrottleDevice { major: 8, minor: 16, rate }];
        let io = BlockIo {
            weight: Some(10),
            weight_device: vec![WeightDevice { major: 8, minor: 16, weight: Some(1000), leaf_weight: None }],
            throttle_read_bps_device: of(1),
            throttle_write_bps_device: of(2),
            throttle_read_iops_device: of(3),
            throttle_write_iops_device: of(0),
            ..BlockIo::default()
        };
        let unified = [
            ("IOWeight".to_owned(), Value::U64(1)),
            rates("IODeviceWeight", 10_000),
            rates("IOReadBandwidthMax", 1),
            rates("IOWriteBandwidthMax", 2),
            rates("IOReadIOPSMax", 3),
            rates("IOWriteIOPSMax", u64::MAX),
        ];
        assert_eq!(of_block_io(&io, true), unified);
        let first = [
            ("BlockIOWeight".to_owned(), Value::U64(10)),
            rates("BlockIODeviceWeight", 1000),
            rates("BlockIOReadBandwidth", 1),
            rates("BlockIOWriteBandwidth", 2),
        ];
        assert_eq!(of_block_io(&io, false), first);
        assert_eq!(of_block_io(&BlockIo::default(), true), []);
    }

    #[test]
    fn files_are_told_too() {
        let weight = |n| ("IOWeight".to_owned(), Value::U64(n));
        assert_eq!(of_io_weight("default 50\n8:16 70"), [weight(50), rates("IODeviceWeight", 70)]);
        assert_eq!((of_io_weight("5"), of_io_weight("much")), (vec![weight(5)], vec![]));
        let told = [rates("IOReadBandwidthMax", 7), rates("IOWriteIOPSMax", u64::MAX)];
        assert_eq!(of_io_max("8:16 rbps=7 wiops=max other=1 wbps=x"), told);
        assert_eq!(of_io_max(""), []);
    }
}
