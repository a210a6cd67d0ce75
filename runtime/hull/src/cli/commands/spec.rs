//! `hull spec`.

use rustix::fs::{CWD, Mode, OFlags};

use super::super::parse::Parsed;
use super::super::{Global, SPEC_VERSION};
use crate::cgroup::layout::Layout;
use crate::error::{Code, Result};
use crate::files;

const TEMPLATE: &str = include_str!("spec.json");

pub(in super::super) fn run(_: &Global, parsed: &Parsed) -> Result<i32> {
    let bundle = parsed.get("bundle").filter(|b| !b.is_empty()).unwrap_or(".");
    let path = format!("{bundle}/config.json");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let text = text(parsed.is("rootless"), Layout::detect().is_ok_and(|l| l.unified()));
    rustix::fs::openat(CWD, path.as_str(), flags, Mode::from_raw_mode(0o644))
        .and_then(|fd| files::write_all(&fd, text.as_bytes()))
        .map(|()| 0)
        .map_err(|e| {
            let error = crate::error::Error::os(Code::Output, path.as_str(), e);
            if e == rustix::io::Errno::EXIST { error.hint("remove it first") } else { error }
        })
}

/// The example: the user's own ids mapped to root for one without rights; a cgroup namespace where there is version 2.
fn text(rootless: bool, unified: bool) -> String {
    let mut out = TEMPLATE.replace("@VERSION@", SPEC_VERSION);
    let cgroup = if unified { ",\n            {\n                \"type\": \"cgroup\"\n            }" } else { "" };
    let (user, maps) = if rootless {
        let map = |id: u32| {
            format!(
                "[\n            {{\n                \"containerID\": 0,\n                \"hostID\": {id},\n                \"size\": 1\n            }}\n        ]"
            )
        };
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        (
            ",\n            {\n                \"type\": \"user\"\n            }",
            format!("\"uidMappings\": {},\n        \"gidMappings\": {},\n        ", map(uid), map(gid)),
        )
    } else {
        ("", String::new())
    };
    out = out.replace("@NAMESPACES@", &format!("{cgroup}{user}")).replace("@MAPS@", &maps);
    if rootless {
        // Group 5 has no mapping; the network stays the host's, so /sys is bound, not mounted anew.
        out = out.replace(",\n                \"gid=5\"", "");
        out = out.replace("            {\n                \"type\": \"network\"\n            },\n", "");
        out = out.replace(
            "\"type\": \"sysfs\",\n            \"source\": \"sysfs\",\n            \"options\": [\n",
            "\"type\": \"none\",\n            \"source\": \"/sys\",\n            \"options\": [\n                \"rbind\",\n                \"rro\",\n",
        );
        let resources = "\"resources\": {\n            \"devices\": [\n                {\n                    \"allow\": false,\n                    \"access\": \"rwm\"\n                }\n            ]\n        },\n        ";
        out = out.replace(resources, "");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{NamespaceType, Spec};

    #[test]
    fn all_forms_are_valid() {
        for (rootless, unified) in [(false, false), (false, true), (true, false), (true, true)] {
            let spec: Spec = serde_json::from_str(&text(rootless, unified)).unwrap();
            crate::container::bundle::check(&spec).unwrap();
            let linux = spec.linux.unwrap();
            let has = |kind| linux.namespaces.iter().any(|n| n.r#type == kind);
            assert_eq!((has(NamespaceType::User), has(NamespaceType::Network)), (rootless, !rootless));
            assert_eq!(has(NamespaceType::Cgroup), unified);
            assert_eq!(linux.resources.is_none(), rootless);
            let process = spec.process.unwrap();
            assert!(process.no_new_privileges);
            let capabilities = process.capabilities.unwrap();
            assert!(capabilities.inheritable.is_empty() && capabilities.ambient.is_empty());
            assert!(linux.seccomp.is_some());
        }
    }
}
