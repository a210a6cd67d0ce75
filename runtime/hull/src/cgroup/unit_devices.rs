//! Device rules as properties of a unit, so that systemd keeps to them whenever it applies its units anew. If the properties cannot express
//! them, the runtime's own filter does, and systemd is told to filter nothing.

use super::dbus::Value;
use super::devices::{self, Rule};
use crate::error::Result;
use crate::files;
use crate::spec::Resources;

/// `DevicePolicy` and `DeviceAllow`.
pub(super) fn properties(resources: &Resources) -> Result<[(String, Value); 2]> {
    let names = files::read_text("/proc/devices", 1 << 20).unwrap_or_default();
    let allowed = allowed(&devices::rules(&resources.devices)?, &names);
    let policy = if allowed.is_some() { "strict" } else { "auto" };
    Ok([
        ("DevicePolicy".to_owned(), Value::Text(policy.to_owned())),
        ("DeviceAllow".to_owned(), Value::Pairs(allowed.unwrap_or_default())),
    ])
}

/// Devices and accesses of a list that begins with "deny all" and only allows after it; `None` for any other.
fn allowed(rules: &[Rule], names: &str) -> Option<Vec<(String, String)>> {
    let is_all = |r: &Rule| r.kind == 'a' && r.major.is_none() && r.minor.is_none() && r.access.len() == 3;
    let (all, after) = rules.get(rules.iter().rposition(is_all)?..)?.split_first()?;
    if all.allow || after.iter().any(|rule| !rule.allow) {
        return None;
    }
    let mut out = Vec::new();
    for rule in after {
        let kinds: &[(&str, &str)] = match rule.kind {
            'b' => &[("block", "Block devices:")],
            'c' => &[("char", "Character devices:")],
            _ => &[("block", "Block devices:"), ("char", "Character devices:")],
        };
        for (kind, heading) in kinds {
            let device = match (rule.major, rule.minor) {
                (None, None) => format!("{kind}-*"),
                // By the driver's name, which may stand for more than this one number: our own filter is narrower.
                (Some(major), None) => format!("{kind}-{}", driver(names, heading, major)?),
                (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
                (None, Some(_)) => return None,
            };
            out.push((device, rule.access.clone()));
        }
    }
    Some(out)
}

/// Name of a major number in `/proc/devices`.
fn driver<'a>(names: &'a str, heading: &str, major: u32) -> Option<&'a str> {
    let section = names.split("\n\n").find(|section| section.trim_start().starts_with(heading))?;
    section
        .lines()
        .filter_map(|line| line.trim().split_once(' '))
        .find_map(|(number, name)| (files::parse_unsigned::<u32>(number) == Some(major)).then(|| name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::resources::DeviceRule;

    const NAMES: &str = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n254 virtblk\n";

    fn of(configured: &[DeviceRule]) -> Option<Vec<(String, String)>> {
        allowed(&devices::rules(configured).unwrap(), NAMES)
    }

    #[test]
    fn the_usual_devices_are_always_allowed() {
        let list = of(&[DeviceRule::default()]).unwrap();
        for entry in [("/dev/char/1:3", "rwm"), ("char-pts", "rwm"), ("block-*", "m")] {
            assert!(list.contains(&(entry.0.to_owned(), entry.1.to_owned())), "{entry:?} in {list:?}");
        }
    }

    #[test]
    fn what_cannot_be_said_is_left_to_the_own_filter() {
        let rule = |allow, major, minor| DeviceRule {
            allow,
            r#type: Some("b".into()),
            major,
            minor,
            access: Some("rw".into()),
        };
        assert_eq!(of(&[DeviceRule { allow: true, ..DeviceRule::default() }]), None);
        assert_eq!(of(&[rule(false, Some(8), Some(0))]), None);
        assert_eq!(of(&[rule(true, None, Some(0))]), None);
        assert_eq!(of(&[rule(true, Some(77), None)]), None, "no driver of that number");
        assert!(of(&[rule(true, Some(254), None)]).unwrap().contains(&("block-virtblk".into(), "rw".into())));
    }
}
