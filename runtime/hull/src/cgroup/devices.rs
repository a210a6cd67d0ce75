//! Device access rules: deny by default, then what every container needs, then the configuration's rules in order.

use std::os::fd::OwnedFd;

use hull_sys::bpf;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::Directory;
use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::spec::resources::DeviceRule;

/// A rule in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) allow: bool,
    /// `a`, `b` or `c`.
    pub(crate) kind: char,
    /// `None` is all.
    pub(crate) major: Option<u32>,
    /// `None` is all.
    pub(crate) minor: Option<u32>,
    /// Letters of `rwm`.
    pub(crate) access: String,
}

impl Rule {
    /// Whether it says something of this access (a letter of `rwm`) to the device.
    pub(crate) fn is_about(&self, kind: char, major: u32, minor: u32, access: &str) -> bool {
        let number = |of_rule: Option<u32>, number| of_rule.is_none_or(|n| n == number);
        (self.kind == 'a' || self.kind == kind)
            && number(self.major, major)
            && number(self.minor, minor)
            && self.access.contains(access)
    }
}

const fn number(n: u32) -> Option<u32> {
    Some(n)
}

/// Kind, major, minor, access of what is always allowed.
const ALWAYS: &[(char, Option<u32>, Option<u32>, &str)] = &[
    ('c', None, None, "m"),
    ('b', None, None, "m"),
    ('c', number(1), number(3), "rwm"),
    ('c', number(1), number(8), "rwm"),
    ('c', number(1), number(7), "rwm"),
    ('c', number(5), number(0), "rwm"),
    ('c', number(1), number(5), "rwm"),
    ('c', number(1), number(9), "rwm"),
    ('c', number(136), None, "rwm"),
    ('c', number(5), number(2), "rwm"),
];

/// All rules of a container: configured ones first (they usually begin with "deny all"), then what every container needs.
pub(crate) fn rules(configured: &[DeviceRule]) -> Result<Vec<Rule>> {
    let deny_all = Rule { allow: false, kind: 'a', major: None, minor: None, access: "rwm".to_owned() };
    let mut out = vec![deny_all];
    for (index, rule) in configured.iter().enumerate() {
        out.push(parse(index, rule)?);
    }
    let last_allows_all =
        out.last().is_some_and(|r| r.allow && r.kind == 'a' && r.major.is_none() && r.minor.is_none());
    if !last_allows_all {
        out.extend(ALWAYS.iter().map(|(kind, major, minor, access)| Rule {
            allow: true,
            kind: *kind,
            major: *major,
            minor: *minor,
            access: (*access).to_owned(),
        }));
    }
    Ok(out)
}

fn parse(index: usize, rule: &DeviceRule) -> Result<Rule> {
    let invalid = |field: &str, what: &str| {
        let list = "linux.resources.devices";
        Error::invalid(format!("{list}[{index}].{field}"), format!("{list}: {what}"))
    };
    let kind = match rule.r#type.as_deref() {
        None | Some("" | "a") => 'a',
        Some("b") => 'b',
        Some("c") => 'c',
        Some(other) => return Err(invalid("type", &format!("type {other:?} is not one of a, b and c"))),
    };
    let part = |field: &str, n: Option<i64>| match n {
        None | Some(-1) => Ok(None),
        Some(n) => u32::try_from(n).map(Some).map_err(|_| invalid(field, &format!("device number {n}"))),
    };
    let access = rule.access.clone().filter(|a| !a.is_empty()).unwrap_or_else(|| "rwm".to_owned());
    if access.chars().any(|c| !"rwm".contains(c)) {
        return Err(invalid("access", &format!("access {access:?} may hold r, w and m only")));
    }
    Ok(Rule { allow: rule.allow, kind, major: part("major", rule.major)?, minor: part("minor", rule.minor)?, access })
}

/// Writes the rules to a version 1 devices cgroup.
pub(super) fn apply_v1(dir: &Directory, configured: &[DeviceRule]) -> Result<()> {
    let show = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
    let all = rules(configured)?;
    // Most configurations begin with "deny all", which was written already: once is enough.
    let start = all
        .iter()
        .rposition(|r| r.kind == 'a' && r.major.is_none() && r.minor.is_none() && r.access.len() == 3)
        .unwrap_or(0);
    // Opened once: each rule is one write, and there are a dozen.
    let (mut allow, mut deny) = (None, None);
    for rule in all.get(start..).unwrap_or(&[]) {
        let (name, file) = if rule.allow { ("devices.allow", &mut allow) } else { ("devices.deny", &mut deny) };
        let mut put = |line: &str| put_line(dir, name, file, line).map_err(|e| dir.error(name, line, e));
        if rule.kind == 'a' && rule.major.is_none() && rule.minor.is_none() && rule.access.len() == 3 {
            put("a")?;
        } else if rule.kind == 'a' {
            for kind in ['b', 'c'] {
                put(&format!("{kind} {}:{} {}", show(rule.major), show(rule.minor), rule.access))?;
            }
        } else {
            put(&format!("{} {}:{} {}", rule.kind, show(rule.major), show(rule.minor), rule.access))?;
        }
    }
    Ok(())
}

fn put_line(dir: &Directory, name: &str, file: &mut Option<OwnedFd>, line: &str) -> Result<(), Errno> {
    let fd = match file {
        Some(fd) => fd,
        None => file.insert(openat(&dir.fd, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?),
    };
    files::write_once(fd, line.as_bytes())
}

/// Loads the rules as a program and attaches it to a version 2 cgroup, replacing the one that an earlier call attached.
pub(crate) fn apply_v2(cgroup: std::os::fd::BorrowedFd<'_>, path: &str, configured: &[DeviceRule]) -> Result<()> {
    let program = bpf::load_device_program(&assemble(&rules(configured)?)).map_err(|e| {
        Error::os(Code::DeviceFilter, path, e).hint("loading a device program needs CAP_BPF or CAP_SYS_ADMIN")
    })?;
    let attached = bpf::device_programs(cgroup).unwrap_or_default();
    // All attached programs must allow an access, so an update has to replace; if there are several (systemd's among them), each older one is
    // removed.
    match attached.as_slice() {
        [] => bpf::attach_device_program(cgroup, program_fd(&program), None).context(Code::DeviceFilter, path),
        [one] => {
            let old = bpf::program_by_id(*one).context(Code::DeviceFilter, path)?;
            bpf::attach_device_program(cgroup, program_fd(&program), Some(program_fd(&old)))
                .context(Code::DeviceFilter, path)
        }
        several => {
            bpf::attach_device_program(cgroup, program_fd(&program), None).context(Code::DeviceFilter, path)?;
            for id in several {
                match bpf::program_by_id(*id) {
                    Ok(old) => {
                        bpf::detach_device_program(cgroup, program_fd(&old)).context(Code::DeviceFilter, path)?
                    }
                    Err(Errno::NOENT) => {}
                    Err(e) => return Err(Error::os(Code::DeviceFilter, path, e)),
                }
            }
            Ok(())
        }
    }
}

fn program_fd(fd: &std::os::fd::OwnedFd) -> std::os::fd::BorrowedFd<'_> {
    use std::os::fd::AsFd as _;
    fd.as_fd()
}

/// One eBPF instruction.
const fn instruction(code: u8, dst: u8, src: u8, offset: u16, immediate: u32) -> u64 {
    code as u64 | ((src << 4 | dst) as u64) << 8 | (offset as u64) << 16 | (immediate as u64) << 32
}

/// The program: later rules win, so they are tested first; without a match the access is denied.
///
/// The context holds `access_type` (access bits << 16 | device type), `major`, `minor`.
pub(crate) fn assemble(rules: &[Rule]) -> Vec<u64> {
    const LOAD_WORD: u8 = 0x61;
    const AND32: u8 = 0x54;
    const RSH32: u8 = 0x74;
    const MOV32: u8 = 0xb4;
    const MOV32_REG: u8 = 0xbc;
    const JNE_REG32: u8 = 0x5e;
    const JNE32: u8 = 0x56;
    const EXIT: u8 = 0x95;
    let mut out = vec![
        // w2 = type, w3 = access, w4 = major, w5 = minor
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(AND32, 2, 0, 0, 0xffff),
        instruction(LOAD_WORD, 3, 1, 0, 0),
        instruction(RSH32, 3, 0, 0, 16),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    let mut ended = false;
    for rule in rules.iter().rev() {
        let mut tests: Vec<u64> = Vec::new();
        // Jump offsets are patched below: each test jumps over the rest of the rule.
        match rule.kind {
            'b' => tests.push(instruction(JNE32, 2, 0, 0, 1)),
            'c' => tests.push(instruction(JNE32, 2, 0, 0, 2)),
            _ => {}
        }
        let mut bits = 0u32;
        for letter in rule.access.chars() {
            bits |= match letter {
                'm' => 1,
                'r' => 2,
                _ => 4,
            };
        }
        if bits != 7 {
            if rule.allow {
                // Every access asked for must be among the rule's.
                tests.push(instruction(MOV32_REG, 1, 3, 0, 0));
                tests.push(instruction(AND32, 1, 0, 0, bits));
                tests.push(instruction(JNE_REG32, 1, 3, 0, 0));
            } else {
                // One of them is enough to deny: skip when none is among the rule's.
                tests.push(instruction(MOV32_REG, 1, 3, 0, 0));
                tests.push(instruction(AND32, 1, 0, 0, bits));
                tests.push(instruction(0x16, 1, 0, 0, 0)); // JEQ32 w1, 0
            }
        }
        if let Some(major) = rule.major {
            tests.push(instruction(JNE32, 4, 0, 0, major));
        }
        if let Some(minor) = rule.minor {
            tests.push(instruction(JNE32, 5, 0, 0, minor));
        }
        let total = tests.len();
        let unconditional = tests.is_empty();
        for (index, test) in tests.into_iter().enumerate() {
            let jumps = matches!(test & 0xff, 0x56 | 0x5e | 0x16);
            let skip = u16::try_from(total.saturating_sub(index).saturating_add(1)).unwrap_or(0);
            out.push(if jumps { test | u64::from(skip) << 16 } else { test });
        }
        out.push(instruction(MOV32, 0, 0, 0, u32::from(rule.allow)));
        out.push(instruction(EXIT, 0, 0, 0, 0));
        if unconditional {
            ended = true;
            break;
        }
    }
    if !ended {
        out.push(instruction(MOV32, 0, 0, 0, 0));
        out.push(instruction(EXIT, 0, 0, 0, 0));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_configuration_denies_all_but_the_usual() {
        let rules = rules(&[]).unwrap();
        assert!(!rules[0].allow && rules[0].kind == 'a');
        assert!(rules.iter().any(|r| r.major == Some(1) && r.minor == Some(3)));
        assert!(!rules.iter().any(|r| r.allow && r.kind == 'b' && r.access.contains('r')));
    }

    #[test]
    fn allow_everything_stays_everything() {
        let rules = rules(&[DeviceRule { allow: true, ..DeviceRule::default() }]).unwrap();
        assert_eq!(rules.len(), 2);
        // Both instructions after the header: allow and exit.
        assert_eq!(assemble(&rules).len(), 8);
    }

    #[test]
    fn bad_access_is_refused() {
        assert!(rules(&[DeviceRule { allow: true, access: Some("rx".into()), ..DeviceRule::default() }]).is_err());
    }
}
