//! The small files that are made for a workspace's container: host names, name servers, git's configuration.

use std::net::Ipv4Addr;

/// `/etc/hosts`.
#[must_use]
pub fn hosts(hostname: &str, address: Ipv4Addr, names: &[(String, Ipv4Addr)]) -> String {
    let mut text = format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{address}\t{hostname}\n");
    for (name, address) in names {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}

/// What each start brings of git's configuration: who commits, and where credentials come from. The image's own is read first, the user's after
/// it.
#[must_use]
pub fn git_config(name: &str, email: &str) -> String {
    let mut text = String::from(
        "[include]\n\tpath = /etc/gitconfig\n[credential]\n\thelper = /.berth/bin/berth-init git-credential\n",
    );
    if !name.is_empty() || !email.is_empty() {
        text.push_str("[user]\n");
        for (key, value) in [("name", name), ("email", email)] {
            if !value.is_empty() {
                text.push_str(&format!("\t{key} = {}\n", quoted(value)));
            }
        }
    }
    text
}

/// Quotes a value so that git reads it back unchanged, whatever the user's name is.
fn quoted(value: &str) -> String {
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => {
                text.push('\\');
                text.push(c);
            }
            // git-config(1) has no way to write these, and no name needs them.
            c if c.is_control() => text.push(' '),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_reads_back_any_name() {
        for name in ["Ada Lovelace", "a\"b\\c", "# ; = [x]", "O'Neill", "名前"] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), git_config(name, "a@b.c")).unwrap();
            let output = std::process::Command::new("git")
                .args(["config", "--file"])
                .arg(file.path())
                .args(["--get", "user.name"])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), name);
        }
        assert!(!git_config("x\n[core]\nsshCommand = evil", "").contains("\n[core]"));
    }

    #[test]
    fn opened_names_stand_in_the_hosts_file() {
        let text =
            hosts("hello", Ipv4Addr::new(10, 209, 0, 2), &[("git.internal".to_owned(), Ipv4Addr::new(10, 0, 0, 5))]);
        assert!(text.contains("10.0.0.5\tgit.internal\n") && text.contains("10.209.0.2\thello\n"));
    }
}
