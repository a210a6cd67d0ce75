//! Reads a bundle and checks everything that can be checked before anything is made.

use rustix::fs::CWD;

use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::hooks;
use crate::process::{limits, own_binary};
use crate::rootfs::options;
use crate::rootfs::resolve::clean;
use crate::spec::{self, Linux, NamespaceType, Process, Seccomp, Spec};

/// Largest configuration that is read.
const CONFIG_LIMIT: usize = 64 << 20;

const CONFIG: &str = "config.json";

/// A bundle.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// Absolute path.
    pub(crate) path: String,
    pub(crate) spec: Spec,
    /// The configuration as it was read.
    pub(crate) json: Vec<u8>,
}

/// The file of a bundle's configuration, or the one that was given instead.
fn config_file(bundle: &str, given: Option<&str>) -> Result<String> {
    given.map_or_else(|| Ok(format!("{bundle}/{CONFIG}")), absolute)
}

impl Bundle {
    /// Reads `config.json` of a bundle.
    pub(crate) fn load(path: &str) -> Result<Self> {
        let path = absolute(path)?;
        let file = config_file(&path, None)?;
        let json = read_config(&file)?;
        Self::parse(path, &file, json)
    }

    /// The same for a container that will run, perhaps with another configuration: from here on, this program runs from
    /// a file it cannot write to.
    pub(crate) fn load_protected(path: &str, config: Option<&str>) -> Result<Self> {
        let path = absolute(path)?;
        let file = config_file(&path, config)?;
        let json = read_config(&file)?;
        let protected = own_binary::protect_early(&json)?;
        let bundle = Self::parse(path, &file, json)?;
        if !protected {
            own_binary::protect(bundle.spec.linux.as_ref())?;
        }
        Ok(bundle)
    }

    fn parse(path: String, file: &str, json: Vec<u8>) -> Result<Self> {
        let spec: Spec = spec::read(&json, file, "")?;
        check(&spec)?;
        Ok(Self { path, spec, json })
    }

    /// The Linux part; absent means empty.
    pub(crate) fn linux(&self) -> &Linux {
        static EMPTY: std::sync::OnceLock<Linux> = std::sync::OnceLock::new();
        self.spec.linux.as_ref().unwrap_or_else(|| EMPTY.get_or_init(Linux::default))
    }

    /// Absolute path of the root directory.
    pub(crate) fn rootfs(&self) -> Result<String> {
        let root = self.spec.root.as_ref().filter(|r| !r.path.is_empty());
        let root = root.ok_or_else(|| invalid("root.path", "root.path is missing"))?;
        Ok(if root.path.starts_with('/') { root.path.clone() } else { format!("{}/{}", self.path, root.path) })
    }
}

fn read_config(file: &str) -> Result<Vec<u8>> {
    files::read_at(CWD, file, CONFIG_LIMIT).context(Code::ConfigRead, file)
}

/// A path as seen from the root directory.
pub(crate) fn absolute(path: &str) -> Result<String> {
    let mut full = path.to_owned();
    if !path.starts_with('/') {
        let cwd = rustix::process::getcwd(Vec::new()).context(Code::ConfigRead, "working directory")?;
        let below = if path == "." { "" } else { path };
        full = format!("{}/{below}", cwd.to_string_lossy());
    }
    full.truncate(full.trim_end_matches('/').len());
    let plain = full.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
    // Only the system knows what `..` means in a path with symlinks.
    if plain {
        return Ok(full);
    }
    let real = std::fs::canonicalize(&full).ok().and_then(|real| real.into_os_string().into_string().ok());
    Ok(real.unwrap_or(full))
}

fn invalid(property: &str, what: impl AsRef<str>) -> Error {
    Error::invalid(property, what)
}

/// Checks a configuration.
pub(crate) fn check(spec: &Spec) -> Result<()> {
    check_version(&spec.oci_version)?;
    let platforms = [
        ("windows", spec.windows.is_some()),
        ("solaris", spec.solaris.is_some()),
        ("vm", spec.vm.is_some()),
        ("zos", spec.zos.is_some()),
        ("freebsd", spec.freebsd.is_some()),
    ];
    if let Some((name, _)) = platforms.iter().find(|(_, there)| *there) {
        return Err(Error::new(Code::Unsupported, *name).says(format!("{name}: this runtime makes Linux containers")));
    }
    if let Some(hooks) = &spec.hooks {
        hooks::check("prestart", &hooks.prestart)?;
        hooks::check("createRuntime", &hooks.create_runtime)?;
        hooks::check("createContainer", &hooks.create_container)?;
        hooks::check("startContainer", &hooks.start_container)?;
        hooks::check("poststart", &hooks.poststart)?;
        hooks::check("poststop", &hooks.poststop)?;
    }
    if spec.annotations.contains_key("") {
        return Err(invalid("annotations", "annotations: a key is empty"));
    }
    if let Some(process) = &spec.process {
        check_process(process)?;
    }
    if let Some(linux) = &spec.linux {
        check_linux(spec, linux)?;
    }
    let has = |kind| spec.linux.as_ref().is_some_and(|l| l.namespaces.iter().any(|n| n.r#type == kind));
    for (name, value) in [("hostname", &spec.hostname), ("domainname", &spec.domainname)] {
        if value.as_ref().is_some_and(|v| !v.is_empty()) && !has(NamespaceType::Uts) {
            return Err(invalid(name, format!("{name} needs a uts namespace: it would change the host's")));
        }
    }
    Ok(())
}

/// Version 1 of the specification, of any minor release.
fn check_version(version: &str) -> Result<()> {
    if is_semver(version) && version.starts_with("1.") {
        return Ok(());
    }
    Err(invalid("ociVersion", format!("ociVersion {version:?}: this runtime follows 1.x.y")))
}

/// Whether a text is a version of SemVer 2.0.0.
fn is_semver(text: &str) -> bool {
    let words = |text: &str| {
        let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        text.split('.').all(word)
    };
    let (text, build) = text.split_once('+').unwrap_or((text, "0"));
    let (numbers, stage) = text.split_once('-').unwrap_or((text, "0"));
    let number = |part: &str| part == "0" || !part.starts_with('0') && files::parse_unsigned::<u64>(part).is_some();
    numbers.split('.').count() == 3 && numbers.split('.').all(number) && words(stage) && words(build)
}

/// Checks `process`, also when `exec` brings one.
pub(crate) fn check_process(process: &Process) -> Result<()> {
    if process.command_line.as_ref().is_some_and(|c| !c.is_empty()) {
        return Err(Error::new(Code::Unsupported, "process.commandLine")
            .says("process.commandLine: it is for Windows, use process.args"));
    }
    if process.user.username.as_ref().is_some_and(|name| !name.is_empty()) {
        return Err(Error::new(Code::Unsupported, "process.user.username")
            .says("process.user.username: it is for Windows, use process.user.uid"));
    }
    if !process.cwd.starts_with('/') {
        return Err(invalid("process.cwd", format!("process.cwd {:?} must be an absolute path", process.cwd)));
    }
    if process.args.is_empty() {
        return Err(invalid("process.args", "process.args is empty"));
    }
    let named = |v: &str| v.split_once('=').is_some_and(|(name, _)| !name.is_empty()) && !v.contains('\0');
    if let Some((index, variable)) = process.env.iter().enumerate().find(|(_, v)| !named(v)) {
        return Err(invalid(&format!("process.env[{index}]"), format!("process.env: {variable:?} is not NAME=value")));
    }
    let user = &process.user;
    // The system calls that set ids take this number as "leave it as it is": the process would stay root.
    if [user.uid, user.gid].iter().chain(&user.additional_gids).any(|id| *id == u32::MAX) {
        return Err(invalid("process.user", "process.user: 4294967295 is the number of no user and no group"));
    }
    if let Some(umask) = process.user.umask.filter(|u| *u > 0o777) {
        return Err(invalid("process.user.umask", format!("process.user.umask {umask:#o} is above 0777")));
    }
    if process.oom_score_adj.is_some_and(|s| !(-1000..=1000).contains(&s)) {
        return Err(invalid("process.oomScoreAdj", "process.oomScoreAdj must be from -1000 to 1000"));
    }
    limits::exec_affinity(process.exec_cpu_affinity.as_ref())?;
    limits::check_rlimits(&process.rlimits)
}

fn check_linux(spec: &Spec, linux: &Linux) -> Result<()> {
    let has = |kind| linux.namespaces.iter().any(|n| n.r#type == kind);
    let makes =
        |kind| linux.namespaces.iter().any(|n| n.r#type == kind && n.path.as_ref().is_none_or(String::is_empty));
    for (index, namespace) in linux.namespaces.iter().enumerate() {
        if linux.namespaces.iter().take(index).any(|other| other.r#type == namespace.r#type) {
            let kind = format!("{:?}", namespace.r#type).to_lowercase();
            return Err(invalid(
                &format!("linux.namespaces[{index}].type"),
                format!("linux.namespaces: {kind} is given twice"),
            ));
        }
        if let Some(path) = namespace.path.as_ref().filter(|p| !p.is_empty() && !p.starts_with('/')) {
            return Err(invalid(
                &format!("linux.namespaces[{index}].path"),
                format!("linux.namespaces: path {path:?} must be absolute"),
            ));
        }
    }
    if makes(NamespaceType::User) && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty()) {
        return Err(invalid("linux.uidMappings", "a new user namespace needs linux.uidMappings and linux.gidMappings"));
    }
    let mapped = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    if mapped && !has(NamespaceType::User) {
        return Err(invalid("linux.uidMappings", "linux.uidMappings and gidMappings need a user namespace"));
    }
    if !linux.time_offsets.is_empty() && !makes(NamespaceType::Time) {
        return Err(invalid("linux.timeOffsets", "linux.timeOffsets need a new time namespace"));
    }
    for clock in linux.time_offsets.keys() {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(invalid(
                "linux.timeOffsets",
                format!("linux.timeOffsets: {clock:?} has no offset; monotonic and boottime have"),
            ));
        }
    }
    if !linux.net_devices.is_empty() && !has(NamespaceType::Network) {
        return Err(invalid("linux.netDevices", "linux.netDevices need a network namespace"));
    }
    if let Some(name) = linux.rootfs_propagation.as_deref().filter(|p| !p.is_empty())
        && options::propagation(name).is_none()
    {
        return Err(invalid(
            "linux.rootfsPropagation",
            format!("linux.rootfsPropagation {name:?} is not a propagation"),
        ));
    }
    if !has(NamespaceType::Mount) {
        let masks = !linux.masked_paths.is_empty() || !linux.readonly_paths.is_empty();
        if !spec.mounts.is_empty() || masks {
            let property = if spec.mounts.is_empty() { "linux.maskedPaths" } else { "mounts" };
            let why = "need a mount namespace: they would change the host's mounts";
            return Err(invalid(property, format!("mounts, maskedPaths and readonlyPaths {why}")));
        }
        if spec.root.as_ref().is_some_and(|r| r.readonly) {
            return Err(invalid("root.readonly", "root.readonly needs a mount namespace"));
        }
    }
    for (property, paths) in
        [("linux.maskedPaths", &linux.masked_paths), ("linux.readonlyPaths", &linux.readonly_paths)]
    {
        if let Some(index) = paths.iter().position(|path| !path.starts_with('/')) {
            let what = format!("linux.maskedPaths and readonlyPaths: {:?} must be absolute", paths[index]);
            return Err(invalid(&format!("{property}[{index}]"), what));
        }
    }
    if let Some(index) = linux.masked_paths.iter().position(|path| clean(path) == "/") {
        return Err(invalid(&format!("linux.maskedPaths[{index}]"), "linux.maskedPaths: the root cannot be masked"));
    }
    for (key, value) in &linux.sysctl {
        super::sysctl::check(key, &has)?;
        super::sysctl::check_names(spec, key, value)?;
    }
    linux.seccomp.as_ref().map_or(Ok(()), check_seccomp)
}

/// Checks that the compiler of profiles does not make.
fn check_seccomp(seccomp: &Seccomp) -> Result<()> {
    let given = |text: &Option<String>| text.as_ref().is_some_and(|t| !t.is_empty());
    if given(&seccomp.listener_metadata) && !given(&seccomp.listener_path) {
        return Err(invalid("linux.seccomp.listenerMetadata", "linux.seccomp.listenerMetadata needs a listenerPath"));
    }
    match seccomp.syscalls.iter().position(|rule| rule.names.is_empty()) {
        Some(index) => {
            let property = format!("linux.seccomp.syscalls[{index}].names");
            Err(invalid(&property, format!("{property} is empty")))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_the_first_major_are_followed() {
        for good in ["1.0.0", "1.3.0", "1.0.2-dev", "1.0.0-rc.1+20-x.0", "1.9.9+x"] {
            assert!(check_version(good).is_ok(), "{good}");
        }
        for bad in ["", "2.0.0", "1.0", "x", "01.0.0", "1.00.0", "1.0.0-", "1.0.0+", "1.0.0-a..b", "1.0.0 ", "1.0.0-ä"]
        {
            assert!(check_version(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mounts_without_a_mount_namespace_are_refused() {
        let spec: Spec =
            serde_json::from_str(r#"{"ociVersion":"1.0.0","mounts":[{"destination":"/x"}],"linux":{}}"#).unwrap();
        assert!(check(&spec).unwrap_err().to_string().contains("mount namespace"));
    }
}
