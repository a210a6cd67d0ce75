//! Errors with a stable code, the phase they belong to, the object they name, the error number and a hint.

use std::fmt;

use rustix::io::Errno;

/// Result of everything in this crate.
///
/// ```
/// fn mounts() -> hull::Result<usize> {
///     Ok(3)
/// }
/// assert_eq!(mounts().unwrap(), 3);
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Part of the life cycle an error belongs to.
///
/// ```
/// assert_eq!(hull::Code::Mount.phase(), hull::Phase::Rootfs);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Command line and option files.
    Usage,
    /// Reading and checking the bundle.
    Config,
    /// The runtime's own records.
    State,
    /// Cgroups.
    Cgroup,
    /// Namespaces and id maps.
    Namespace,
    /// Root file system, mounts and devices.
    Rootfs,
    /// Hooks.
    Hook,
    /// Identity, capabilities, filters and the final execve.
    Process,
    /// Terminal.
    Console,
    /// Checkpoint and restore.
    Checkpoint,
}

impl Phase {
    /// Name in logs.
    ///
    /// ```
    /// assert_eq!(hull::Phase::Rootfs.as_str(), "rootfs");
    /// ```
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Config => "config",
            Self::State => "state",
            Self::Cgroup => "cgroup",
            Self::Namespace => "namespace",
            Self::Rootfs => "rootfs",
            Self::Hook => "hook",
            Self::Process => "process",
            Self::Console => "console",
            Self::Checkpoint => "checkpoint",
        }
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $variant:ident = $number:literal, $name:literal, $phase:ident, $text:literal;)*) => {
        /// What failed; the names are stable, new ones may be added.
        ///
        /// ```
        /// assert_eq!(hull::Code::parse(hull::Code::Mount.as_str()), Some(hull::Code::Mount));
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Code {
            /// The stable name.
            ///
            /// ```
            /// assert_eq!(hull::Code::Mount.as_str(), "mount");
            /// ```
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The phase it belongs to.
            ///
            /// ```
            /// assert_eq!(hull::Code::Exec.phase(), hull::Phase::Process);
            /// ```
            pub fn phase(self) -> Phase {
                match self { $(Self::$variant => Phase::$phase,)* }
            }

            fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The code of a stable name.
            ///
            /// ```
            /// assert_eq!(hull::Code::parse("mount"), Some(hull::Code::Mount));
            /// ```
            pub fn parse(name: &str) -> Option<Self> {
                Some(match name { $($name => Self::$variant,)* _ => return None })
            }

            /// Number on the wire between the processes of one start.
            pub(crate) fn number(self) -> u16 {
                match self { $(Self::$variant => $number,)* }
            }

            pub(crate) fn from_number(number: u16) -> Self {
                match number { $($number => Self::$variant,)* _ => Self::Internal }
            }
        }
    };
}

codes! {
    /// Something that should not happen.
    Internal = 0, "internal", State, "internal error";
    /// Wrong command line.
    Usage = 1, "usage", Usage, "";
    /// A file named on the command line cannot be read.
    InputFile = 2, "input-file", Usage, "cannot read";
    /// `config.json` cannot be read.
    ConfigRead = 3, "config-read", Config, "cannot read";
    /// `config.json` is not what the specification says.
    ConfigInvalid = 4, "config-invalid", Config, "invalid configuration:";
    /// The configuration asks for what cannot be had here.
    Unsupported = 5, "unsupported", Config, "not supported:";
    /// A container id with characters that are not allowed.
    InvalidId = 6, "invalid-id", State, "invalid container id";
    /// The id is taken.
    Exists = 7, "container-exists", State, "container with given ID already exists:";
    /// No such container.
    NotFound = 8, "container-not-found", State, "container does not exist:";
    /// The operation does not fit the container's state.
    WrongState = 9, "wrong-state", State, "";
    /// A state file cannot be read, written or trusted.
    StateFile = 10, "state-file", State, "cannot use state file";
    /// A signal cannot be sent.
    Signal = 11, "signal", State, "cannot signal";
    /// A cgroup cannot be made.
    CgroupCreate = 12, "cgroup-create", Cgroup, "cannot create cgroup";
    /// A limit cannot be set.
    CgroupWrite = 13, "cgroup-write", Cgroup, "cannot write";
    /// A cgroup file cannot be read.
    CgroupRead = 14, "cgroup-read", Cgroup, "cannot read";
    /// The process cannot be put into its cgroup.
    CgroupJoin = 15, "cgroup-join", Cgroup, "cannot join cgroup";
    /// A cgroup cannot be removed.
    CgroupRemove = 16, "cgroup-remove", Cgroup, "cannot remove cgroup";
    /// Freezing or thawing failed.
    Freeze = 17, "freeze", Cgroup, "cannot freeze or thaw";
    /// systemd refused or did not answer.
    Systemd = 18, "systemd", Cgroup, "systemd:";
    /// The device filter cannot be loaded or attached.
    DeviceFilter = 19, "device-filter", Cgroup, "cannot set the device rules of";
    /// A new process cannot be made.
    Clone = 20, "clone", Namespace, "cannot create process in new namespaces";
    /// A namespace cannot be joined.
    NamespaceJoin = 21, "namespace-join", Namespace, "cannot join namespace";
    /// A namespace cannot be made.
    NamespaceCreate = 22, "namespace-create", Namespace, "cannot create namespace";
    /// Id maps cannot be written.
    IdMap = 23, "id-map", Namespace, "cannot write id map";
    /// The host name or domain name cannot be set.
    HostName = 24, "host-name", Namespace, "cannot set";
    /// A network interface cannot be set up.
    Network = 25, "network", Namespace, "cannot set up network interface";
    /// The root directory cannot be opened.
    RootOpen = 26, "root-open", Rootfs, "cannot open root file system";
    /// A bind mount's source cannot be opened.
    MountSource = 27, "mount-source", Rootfs, "cannot open mount source";
    /// A mount's destination cannot be opened or made.
    MountTarget = 28, "mount-target", Rootfs, "cannot open or create mount destination";
    /// A file system cannot be mounted.
    Mount = 29, "mount", Rootfs, "cannot mount";
    /// Mount attributes cannot be set.
    MountAttr = 30, "mount-attr", Rootfs, "cannot set attributes of mount";
    /// An unknown or unfitting mount option.
    MountOption = 31, "mount-option", Rootfs, "mount option";
    /// A device node cannot be made.
    Device = 32, "device", Rootfs, "cannot create device";
    /// A path cannot be masked or made read-only.
    Mask = 33, "mask", Rootfs, "cannot mask or protect";
    /// The root cannot be switched.
    Pivot = 34, "pivot", Rootfs, "cannot change root:";
    /// A kernel parameter cannot be set.
    Sysctl = 35, "sysctl", Rootfs, "cannot set sysctl";
    /// A hook failed.
    Hook = 36, "hook", Hook, "error running";
    /// The working directory cannot be entered.
    Cwd = 37, "cwd", Process, "cannot enter working directory";
    /// User or group ids cannot be set.
    Identity = 38, "identity", Process, "cannot set";
    /// Capabilities cannot be set.
    Capabilities = 39, "capabilities", Process, "cannot set capabilities";
    /// A resource limit cannot be set.
    Rlimit = 40, "rlimit", Process, "cannot set resource limit";
    /// A scheduling property cannot be set.
    Scheduling = 41, "scheduling", Process, "cannot set";
    /// A security label cannot be set.
    Label = 42, "label", Process, "cannot set security label:";
    /// The seccomp filter cannot be compiled or installed.
    Seccomp = 43, "seccomp", Process, "seccomp:";
    /// The program cannot be found or executed.
    Exec = 44, "exec", Process, "exec:";
    /// The process ended before it was set up.
    InitDied = 45, "init-died", Process, "container process ended during set-up:";
    /// The terminal cannot be set up.
    Console = 46, "console", Console, "cannot set up terminal:";
    /// Descriptors cannot be passed.
    Descriptors = 47, "descriptors", Process, "cannot pass descriptors:";
    /// CRIU failed or is missing.
    Checkpoint = 48, "checkpoint", Checkpoint, "";
    /// Landlock rules cannot be applied.
    Landlock = 49, "landlock", Process, "landlock:";
    /// resctrl cannot be set up.
    IntelRdt = 50, "intel-rdt", Cgroup, "cannot set up resctrl group";
    /// The time offsets cannot be set.
    TimeOffsets = 51, "time-offsets", Namespace, "cannot set offset of clock";
    /// A deadline passed.
    Timeout = 52, "timeout", State, "timed out:";
    /// A notify or listener socket cannot be used.
    Socket = 53, "socket", Process, "cannot use socket";
    /// Output cannot be written.
    Output = 54, "output", Usage, "cannot write";
    /// A WebAssembly program cannot be run.
    Wasm = 55, "wasm", Process, "WebAssembly:";
}

/// An error of the runtime.
///
/// ```
/// use hull::{Code, Error};
/// let error = Error::new(Code::NotFound, "web");
/// assert_eq!((error.code().as_str(), error.object()), ("container-not-found", "web"));
/// ```
#[derive(Debug, Clone)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Debug, Clone)]
struct Inner {
    code: Code,
    object: String,
    /// Empty: made of the code's text and the object.
    message: String,
    errno: Option<Errno>,
    hint: String,
}

impl Error {
    /// An error without an error number. The object is what the code is about, by name and nothing else: a path, a
    /// container's id, a property such as `linux.seccomp.syscalls[3].action`, a flag.
    ///
    /// ```
    /// use hull::{Code, Error};
    /// assert_eq!(Error::new(Code::Mount, "/data").to_string(), "cannot mount /data");
    /// ```
    pub fn new(code: Code, object: impl Into<String>) -> Self {
        let (message, hint) = (String::new(), String::new());
        Self { inner: Box::new(Inner { code, object: object.into(), message, errno: None, hint }) }
    }

    /// An error of a system call.
    ///
    /// ```
    /// use hull::{Code, Error};
    /// let error = Error::os(Code::Mount, "/data", rustix::io::Errno::PERM);
    /// assert_eq!(error.to_string(), "cannot mount /data: operation not permitted");
    /// ```
    pub fn os(code: Code, object: impl Into<String>, errno: Errno) -> Self {
        Self::new(code, object).with_errno(Some(errno))
    }

    /// What the message says in place of the object's bare name.
    ///
    /// ```
    /// use hull::{Code, Error};
    /// let error = Error::new(Code::ConfigInvalid, "process.args").says("process.args is empty");
    /// assert_eq!(error.to_string(), "invalid configuration: process.args is empty");
    /// assert_eq!(error.object(), "process.args");
    /// ```
    #[must_use]
    pub fn says(mut self, sentence: impl AsRef<str>) -> Self {
        self.inner.message = joined(self.code().text(), sentence.as_ref());
        self
    }

    /// An error of the standard library, with its error number if it has one.
    pub(crate) fn of_io(code: Code, object: impl Into<String>, error: &std::io::Error) -> Self {
        let object = object.into();
        match Errno::from_io_error(error) {
            Some(errno) => Self::os(code, object, errno),
            None => Self::new(code, object.as_str()).says(format!("{object}: {error}")),
        }
    }

    /// A property of the configuration, and what is wrong with it.
    pub(crate) fn invalid(property: impl Into<String>, sentence: impl AsRef<str>) -> Self {
        Self::new(Code::ConfigInvalid, property).says(sentence)
    }

    /// A flag, command or argument, and what is wrong with it.
    pub(crate) fn usage(word: impl Into<String>, sentence: impl AsRef<str>) -> Self {
        Self::new(Code::Usage, word).says(sentence)
    }

    /// The same error of a part of what `parent` names.
    pub(crate) fn within(mut self, parent: &str) -> Self {
        if self.code() == Code::ConfigInvalid {
            self.inner.object = format!("{parent}.{}", self.inner.object);
        }
        self
    }

    /// Adds what to do about it.
    ///
    /// ```
    /// use hull::{Code, Error};
    /// let error = Error::new(Code::Mount, "/data").hint("mount it read-only");
    /// assert_eq!(error.to_string(), "cannot mount /data (mount it read-only)");
    /// ```
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.inner.hint = hint.into();
        self
    }

    /// Adds an error number that came as a number.
    pub(crate) fn with_errno(mut self, errno: Option<Errno>) -> Self {
        self.inner.errno = errno;
        self
    }

    /// What failed.
    ///
    /// ```
    /// use hull::{Code, Error};
    /// assert_eq!(Error::new(Code::Mount, "/data").code(), Code::Mount);
    /// ```
    pub fn code(&self) -> Code {
        self.inner.code
    }

    /// What it failed on.
    ///
    /// ```
    /// use hull::{Code, Error};
    /// assert_eq!(Error::new(Code::Mount, "/data").object(), "/data");
    /// ```
    pub fn object(&self) -> &str {
        &self.inner.object
    }

    /// The kernel's error number.
    ///
    /// ```
    /// use hull::{Code, Error};
    /// assert_eq!(Error::new(Code::Mount, "/data").errno(), None);
    /// ```
    pub fn errno(&self) -> Option<Errno> {
        self.inner.errno
    }

    /// What to do about it; may be empty.
    ///
    /// ```
    /// use hull::{Code, Error};
    /// assert_eq!(Error::new(Code::Mount, "/data").advice(), "");
    /// ```
    pub fn advice(&self) -> &str {
        &self.inner.hint
    }

    /// The error that a log tells of.
    pub(crate) fn from_log(code: Code, object: String, errno: Option<Errno>, hint: String, message: &str) -> Self {
        let mut error = Self::new(code, object).with_errno(errno).hint(hint);
        error.inner.message = message.strip_suffix(&error.tail()).unwrap_or(message).to_owned();
        error
    }

    /// What follows the message: error number and hint.
    fn tail(&self) -> String {
        let errno = self.errno().map(|errno| format!(": {}", errno_text(errno))).unwrap_or_default();
        if self.advice().is_empty() { errno } else { format!("{errno} ({})", self.advice()) }
    }

    /// The bytes that carry the error from the container's process to the runtime.
    pub(crate) fn to_wire(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(&self.code().number().to_ne_bytes());
        out.extend_from_slice(&self.errno().map_or(0, Errno::raw_os_error).to_ne_bytes());
        // Bounded, so that one datagram always carries it.
        for (text, longest) in [(self.object(), 1500), (&self.inner.message, 2000), (self.advice(), 500)] {
            out.extend(text.chars().take(longest).filter(|c| *c != '\0').collect::<String>().into_bytes());
            out.push(0);
        }
        out
    }

    pub(crate) fn from_wire(bytes: &[u8]) -> Self {
        let (Some(&[a, b]), Some(&[c, d, e, f])) = (bytes.get(..2), bytes.get(2..6)) else {
            return Self::new(Code::Internal, "short message from the container's process");
        };
        let errno = i32::from_ne_bytes([c, d, e, f]);
        let text = String::from_utf8_lossy(bytes.get(6..).unwrap_or(&[]));
        let mut texts = text.split('\0').map(str::to_owned);
        let mut next = || texts.next().unwrap_or_default();
        Self {
            inner: Box::new(Inner {
                code: Code::from_number(u16::from_ne_bytes([a, b])),
                object: next(),
                message: next(),
                errno: errno_of(errno),
                hint: next(),
            }),
        }
    }
}

/// An error number of somebody else, if it can be one.
pub(crate) fn errno_of(number: i32) -> Option<Errno> {
    (1..4096).contains(&number).then(|| Errno::from_raw_os_error(number))
}

/// The C library's text for an error number, in lower case as Go programs expect it.
pub(crate) fn errno_text(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().collect::<String>() + chars.as_str(),
        None => String::new(),
    }
}

/// A code's text and what it is about.
fn joined(text: &str, rest: &str) -> String {
    match (text.is_empty(), rest.is_empty()) {
        (true, _) => rest.to_owned(),
        (false, true) => text.trim_end_matches(':').to_owned(),
        (false, false) => format!("{text} {rest}"),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.inner.message.is_empty() {
            f.write_str(&joined(self.code().text(), self.object()))?;
        } else {
            f.write_str(&self.inner.message)?;
        }
        f.write_str(&self.tail())
    }
}

impl std::error::Error for Error {}

/// Attaches code and object to the error number of a system call.
pub(crate) trait Context<T> {
    fn context(self, code: Code, object: &str) -> Result<T>;
    fn with<S: Into<String>>(self, code: Code, object: impl FnOnce() -> S) -> Result<T>;
    /// The message says what was done to the object.
    fn doing(self, code: Code, object: &str, what: &str) -> Result<T>;
}

impl<T> Context<T> for std::result::Result<T, Errno> {
    fn context(self, code: Code, object: &str) -> Result<T> {
        self.map_err(|errno| Error::os(code, object, errno))
    }

    fn with<S: Into<String>>(self, code: Code, object: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|errno| Error::os(code, object(), errno))
    }

    fn doing(self, code: Code, object: &str, what: &str) -> Result<T> {
        self.map_err(|errno| Error::os(code, object, errno).says(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_and_log_keep_everything() {
        let plain = Error::os(Code::Mount, "/proc", Errno::PERM).hint("mount it read-only");
        assert_eq!(plain.to_string(), "cannot mount /proc: operation not permitted (mount it read-only)");
        let said = Error::os(Code::Mount, "/proc", Errno::PERM).says("proc on /proc");
        assert_eq!(said.to_string(), "cannot mount proc on /proc: operation not permitted");
        for error in [plain, said, Error::new(Code::Internal, "")] {
            let log = |e: &Error| {
                let (object, hint) = (e.object().to_owned(), e.advice().to_owned());
                Error::from_log(e.code(), object, e.errno(), hint, &e.to_string())
            };
            for back in [Error::from_wire(&error.to_wire()), log(&error)] {
                assert_eq!(back.to_string(), error.to_string());
                assert_eq!((back.code(), back.object()), (error.code(), error.object()));
                assert_eq!((back.errno(), back.advice()), (error.errno(), error.advice()));
            }
        }
    }

    /// Callers compare them, in JSON logs and across versions of the two processes of one start.
    #[test]
    fn codes_keep_their_names_and_numbers() {
        const CODES: &str = "0:internal 1:usage 2:input-file 3:config-read 4:config-invalid 5:unsupported 6:invalid-id 7:container-exists \
             8:container-not-found 9:wrong-state 10:state-file 11:signal 12:cgroup-create 13:cgroup-write 14:cgroup-read \
             15:cgroup-join 16:cgroup-remove 17:freeze 18:systemd 19:device-filter 20:clone 21:namespace-join \
             22:namespace-create 23:id-map 24:host-name 25:network 26:root-open 27:mount-source 28:mount-target 29:mount \
             30:mount-attr 31:mount-option 32:device 33:mask 34:pivot 35:sysctl 36:hook 37:cwd 38:identity \
             39:capabilities 40:rlimit 41:scheduling 42:label 43:seccomp 44:exec 45:init-died 46:console 47:descriptors \
             48:checkpoint 49:landlock 50:intel-rdt 51:time-offsets 52:timeout 53:socket 54:output 55:wasm";
        for code in CODES.split(' ') {
            let (number, name) = code.split_once(':').unwrap();
            let known = Code::parse(name).unwrap();
            assert_eq!((known.number().to_string().as_str(), known.as_str()), (number, name));
            assert_eq!(Code::from_number(known.number()), known);
        }
    }

    #[test]
    fn one_datagram_carries_the_longest_error() {
        let long = "\u{10000}".repeat(10_000);
        let error = Error::os(Code::Mount, long.as_str(), Errno::PERM).says(&long).hint(&long);
        let sent = crate::container::sync::LARGEST;
        assert!(error.to_wire().len() < sent, "{} of {sent}", error.to_wire().len());
        assert!(Error::from_wire(&error.to_wire()).advice().chars().count() == 500);
    }

    #[test]
    fn short_wire_message_is_an_internal_error() {
        assert_eq!(Error::from_wire(&[1]).code(), Code::Internal);
    }
}
