//! Resource director technology (`linux.intelRdt`), where the kernel has /sys/fs/resctrl.

use rustix::fs::{AtFlags, CWD, Mode};
use rustix::io::Errno;

use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::spec::IntelRdt;

const RESCTRL: &str = "/sys/fs/resctrl";

/// Puts the process in its class; returns what is to be removed with the container.
pub(super) fn apply(rdt: &IntelRdt, id: &str, pid: i32) -> Result<Option<String>> {
    apply_below(RESCTRL, rdt, id, pid, check_schemata)
}

/// Changes the schemata of a container's class, as the caller asks, even if others are in it.
pub(crate) fn update(rdt: &IntelRdt, id: &str, pid: i32) -> Result<Option<String>> {
    if *rdt == IntelRdt::default() {
        return Ok(None);
    }
    apply_below(RESCTRL, rdt, id, pid, |_, _| Ok(()))
}

/// What the specification demands of the lines: `schemata` has one in each element, and each schema is of its kind.
fn check_lines(rdt: &IntelRdt) -> Result<()> {
    let one = |property: String, line: &str, begin: &str| {
        if line.trim_end().contains('\n') || !line.starts_with(begin) {
            let kind = if begin.is_empty() { String::new() } else { format!(" that begins with {begin}") };
            return Err(Error::invalid(property.as_str(), format!("{property} {line:?}: it must be one line{kind}")));
        }
        Ok(())
    };
    if let Some(line) = &rdt.mem_bw_schema {
        one("linux.intelRdt.memBwSchema".to_owned(), line, "MB:")?;
    }
    let mut lines = rdt.schemata.iter().enumerate();
    lines.try_for_each(|(n, line)| one(format!("linux.intelRdt.schemata[{n}]"), line, ""))
}

fn apply_below(
    resctrl: &str,
    rdt: &IntelRdt,
    id: &str,
    pid: i32,
    check: fn(&str, &IntelRdt) -> Result<()>,
) -> Result<Option<String>> {
    check_lines(rdt)?;
    if !files::exists_at(CWD, &format!("{resctrl}/schemata")) {
        return Err(Error::new(Code::Unsupported, "linux.intelRdt").says("linux.intelRdt: resctrl is not mounted here"));
    }
    let named = rdt.clos_id.as_deref().filter(|c| !c.is_empty());
    let class = named.unwrap_or(id);
    if class.contains('/') && class != "/" || class == "." || class == ".." {
        return Err(Error::invalid("linux.intelRdt.closID", format!("linux.intelRdt.closID {class:?} is not a name")));
    }
    let group = if class == "/" { resctrl.to_owned() } else { format!("{resctrl}/{class}") };
    let made = enter_class(&group, rdt, named.is_some(), check)?;
    // From now on others may use a class that has a name: it stays.
    let own = (made && named.is_none()).then(|| group.clone());
    fill(&group, rdt, id, pid).map(|monitored| own.or(monitored)).inspect_err(|_| {
        if made {
            remove(&group);
        }
    })
}

/// Makes the class, or checks that an existing one is as configured; returns whether it was made.
fn enter_class(group: &str, rdt: &IntelRdt, named: bool, check: fn(&str, &IntelRdt) -> Result<()>) -> Result<bool> {
    let plain = rdt.l3_cache_schema.is_none() && rdt.mem_bw_schema.is_none() && rdt.schemata.is_empty();
    if named && plain {
        return if files::exists_at(CWD, group) {
            Ok(false)
        } else {
            Err(Error::new(Code::IntelRdt, "linux.intelRdt.closID")
                .says(format!("linux.intelRdt.closID: there is no class {group}"))
                .hint("make it first, or give it a schema"))
        };
    }
    match rustix::fs::mkdirat(CWD, group, Mode::from_raw_mode(0o755)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) if named => check(group, rdt).map(|()| false),
        Err(Errno::EXIST) => Ok(false),
        Err(e) => Err(Error::os(Code::IntelRdt, group, e)),
    }
}

/// The container's cache and bandwidth schema must be those that the class has: it is not this container's alone.
fn check_schemata(group: &str, rdt: &IntelRdt) -> Result<()> {
    let path = format!("{group}/schemata");
    let present = files::read_text(&path, 1 << 20).context(Code::IntelRdt, &path)?;
    let wanted = rdt.l3_cache_schema.iter().chain(&rdt.mem_bw_schema).flat_map(|text| text.lines());
    for line in wanted.filter(|line| !line.trim().is_empty()) {
        if !has_schema(&present, line) {
            return Err(Error::new(Code::IntelRdt, path)
                .says(format!("schema {line:?}: the class {group} has another"))
                .hint("name another linux.intelRdt.closID, or leave the schema out"));
        }
    }
    Ok(())
}

/// Whether the lines of a class include everything that `wanted` (`L3:0=7ff;1=7ff`) asks for. The kernel pads numbers with zeros.
fn has_schema(present: &str, wanted: &str) -> bool {
    fn parse(line: &str) -> Option<(&str, Vec<(&str, &str)>)> {
        let (resource, domains) = line.trim().split_once(':')?;
        let domains = domains.split(';').map(str::trim).filter(|domain| !domain.is_empty());
        let numbers = domains.map(|domain| domain.split_once('=').map(|(id, value)| (bare(id), bare(value))));
        Some((resource.trim(), numbers.collect::<Option<_>>()?))
    }
    fn bare(number: &str) -> &str {
        let bare = number.trim().trim_start_matches('0');
        if bare.is_empty() { "0" } else { bare }
    }
    let Some((resource, domains)) = parse(wanted) else { return false };
    present.lines().filter_map(parse).any(|(name, has)| {
        name == resource
            && domains.iter().all(|(id, value)| has.iter().any(|(i, v)| i == id && v.eq_ignore_ascii_case(value)))
    })
}

/// Writes schemata and the process; returns the monitoring group, if there is to be one.
fn fill(group: &str, rdt: &IntelRdt, id: &str, pid: i32) -> Result<Option<String>> {
    for line in rdt.l3_cache_schema.iter().chain(&rdt.mem_bw_schema).chain(&rdt.schemata) {
        let text = format!("{}\n", line.trim_end());
        let path = format!("{group}/schemata");
        files::write_at(CWD, &path, text.as_bytes()).doing(Code::IntelRdt, &path, &format!("schemata {line:?}"))?;
    }
    files::write_at(CWD, &format!("{group}/tasks"), pid.to_string().as_bytes()).context(Code::IntelRdt, group)?;
    if ![rdt.enable_monitoring, rdt.enable_cmt, rdt.enable_mbm].contains(&Some(true)) {
        return Ok(None);
    }
    let path = format!("{group}/mon_groups/{id}");
    rustix::fs::mkdirat(CWD, path.as_str(), Mode::from_raw_mode(0o755)).context(Code::IntelRdt, &path)?;
    files::write_at(CWD, &format!("{path}/tasks"), pid.to_string().as_bytes()).context(Code::IntelRdt, &path)?;
    Ok(Some(path))
}

/// Removes a group that was made for a container.
pub(super) fn remove(path: &str) {
    // Already gone is as good.
    let _ = rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with the files that matter, and a class that is there already.
    fn resctrl() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("gold")).unwrap();
        for name in ["schemata", "tasks", "gold/schemata", "gold/tasks"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        std::fs::write(folder.path().join("gold/schemata"), "    L3:0=0ff;1=00f\n    MB:0=100;1= 50\n").unwrap();
        folder
    }

    fn rdt(class: Option<&str>, l3: Option<&str>) -> IntelRdt {
        IntelRdt { clos_id: class.map(str::to_owned), l3_cache_schema: l3.map(str::to_owned), ..IntelRdt::default() }
    }

    fn applied(folder: &tempfile::TempDir, rdt: &IntelRdt) -> Result<Option<String>> {
        apply_below(folder.path().to_str().unwrap(), rdt, "id", 7, check_schemata)
    }

    #[test]
    fn a_class_without_schema_must_exist() {
        let folder = resctrl();
        let error = applied(&folder, &rdt(Some("silver"), None)).unwrap_err();
        assert!(error.to_string().contains("silver"), "{error}");
        assert!(!folder.path().join("silver").exists());
        assert_eq!(applied(&folder, &rdt(Some("gold"), None)).unwrap(), None);
        assert_eq!(std::fs::read_to_string(folder.path().join("gold/tasks")).unwrap(), "7");
    }

    #[test]
    fn the_schema_of_a_class_that_exists_must_be_the_containers() {
        let folder = resctrl();
        let error = applied(&folder, &rdt(Some("gold"), Some("L3:0=f;1=f"))).unwrap_err();
        assert!(error.to_string().contains("another"), "{error}");
        assert_eq!(std::fs::read_to_string(folder.path().join("gold/tasks")).unwrap(), "");
        assert_eq!(applied(&folder, &rdt(Some("gold"), Some("L3:0=FF;1=f"))).unwrap(), None);
        assert!(has_schema("MB:0=100;1= 50", "MB:1=50") && !has_schema("MB:0=100", "L3:0=100"));
        assert!(!has_schema("L3:0=f", "L3") && !has_schema("L3:0=f", "L3:0=f;1=f"));
    }

    #[test]
    fn each_schema_is_one_line_of_its_kind() {
        let folder = resctrl();
        let bandwidth = IntelRdt { mem_bw_schema: Some("L3:0=f".into()), ..rdt(Some("gold"), None) };
        let lines = IntelRdt { schemata: vec!["MB:0=10".into(), "MB:0=10\nL3:0=f".into()], ..rdt(Some("gold"), None) };
        for (bad, property) in [(bandwidth, "memBwSchema"), (lines, "schemata[1]")] {
            let error = applied(&folder, &bad).unwrap_err();
            assert!(error.to_string().contains(&format!("linux.intelRdt.{property}")), "{error}");
        }
        assert_eq!(std::fs::read_to_string(folder.path().join("gold/tasks")).unwrap(), "");
    }

    #[test]
    fn only_a_class_of_the_containers_own_is_removed() {
        let folder = resctrl();
        // A plain directory has no `schemata` to write, so making the class fails and is undone.
        assert!(applied(&folder, &rdt(None, Some("L3:0=f"))).is_err());
        assert!(!folder.path().join("id").exists());
        let group = folder.path().join("id").to_str().unwrap().to_owned();
        let made = |named| enter_class(&group, &rdt(None, Some("L3:0=f")), named, |_, _| Ok(())).unwrap();
        assert_eq!((made(false), made(false), made(true)), (true, false, false));
    }
}
