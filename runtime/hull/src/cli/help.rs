//! Help texts, man pages and completions, all from the table of commands.

use std::fmt::Write as _;

use super::VERSION;
use super::manual::{NOTES, SECTIONS};
use super::parse::{Flag, Kind};
use super::table::{COMMANDS, Command, GLOBAL};

fn flag_words(flag: &Flag) -> String {
    let mut out = format!("--{}", flag.name);
    for alias in flag.aliases {
        let dash = if alias.len() == 1 { "-" } else { "--" };
        let _ = write!(out, ", {dash}{alias}");
    }
    if flag.kind != Kind::Bool {
        let _ = write!(out, " {}", flag.value);
    }
    out
}

fn flag_lines(flags: &[Flag]) -> String {
    let width = flags.iter().map(|f| flag_words(f).len()).max().unwrap_or(0);
    let mut out = String::new();
    for flag in flags {
        let _ = writeln!(out, "   {:width$}  {}", flag_words(flag), flag.help);
    }
    out
}

/// Help of the program.
pub(super) fn overview() -> String {
    let mut out = format!(
        "NAME:\n   hull - Open Container Initiative runtime, version {VERSION}\n\nUSAGE:\n   hull [global options] command [options] [arguments]\n\nCOMMANDS:\n"
    );
    for command in COMMANDS {
        let _ = writeln!(out, "   {:11} {}", command.name, command.about);
    }
    let _ = write!(out, "\nGLOBAL OPTIONS:\n{}", flag_lines(GLOBAL));
    out
}

/// Help of a command.
pub(super) fn command(command: &Command) -> String {
    let mut out = format!(
        "NAME:\n   hull {} - {}\n\nUSAGE:\n   hull {} [options] {}\n",
        command.name, command.about, command.name, command.usage
    );
    if !command.flags.is_empty() {
        let _ = write!(out, "\nOPTIONS:\n{}", flag_lines(command.flags));
    }
    out
}

fn roff(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

fn man_flags(out: &mut String, flags: &[Flag]) {
    for flag in flags {
        let _ = writeln!(out, ".TP\n.B {}\n{}", roff(&flag_words(flag)), roff(flag.help));
    }
}

/// The man page of the program, or of one command.
pub(super) fn man(of: Option<&Command>) -> String {
    let mut out = String::new();
    match of {
        None => {
            let _ = writeln!(
                out,
                ".TH HULL 8 \"\" \"hull {VERSION}\"\n.SH NAME\nhull \\- OCI runtime\n.SH SYNOPSIS\n.B hull\n[global options] command [options] [arguments]"
            );
            let _ = writeln!(
                out,
                ".SH DESCRIPTION\nRuns containers as the Open Container Initiative's runtime specification 1.3 describes them."
            );
            let _ = writeln!(out, ".SH COMMANDS");
            for command in COMMANDS {
                let _ = writeln!(out, ".TP\n.BR hull\\-{} (8)\n{}", command.name, roff(command.about));
            }
            let _ = writeln!(out, ".SH GLOBAL OPTIONS");
            man_flags(&mut out, GLOBAL);
            for (heading, paragraphs) in SECTIONS {
                let _ = writeln!(out, ".SH {heading}");
                for (name, text) in *paragraphs {
                    let _ = writeln!(out, ".TP\n.B {}\n{}", roff(name), roff(text));
                }
            }
        }
        Some(command) => {
            let _ = writeln!(
                out,
                ".TH HULL\\-{} 8 \"\" \"hull {VERSION}\"\n.SH NAME\nhull\\-{} \\- {}",
                command.name.to_uppercase(),
                command.name,
                roff(command.about)
            );
            let _ = writeln!(out, ".SH SYNOPSIS\n.B hull {}\n[options] {}", command.name, roff(command.usage));
            for (_, text) in NOTES.iter().filter(|(name, _)| *name == command.name) {
                let _ = writeln!(out, ".SH DESCRIPTION\n{}", roff(text));
            }
            if !command.flags.is_empty() {
                let _ = writeln!(out, ".SH OPTIONS");
                man_flags(&mut out, command.flags);
            }
            let _ = writeln!(
                out,
                ".SH EXIT STATUS\n0 on success, otherwise 1 (exec: 255); run and exec in the foreground give the program's own status, or 128 plus the signal that ended it.\n.SH SEE ALSO\n.BR hull (8)"
            );
        }
    }
    out
}

fn long_flags(flags: &[Flag]) -> String {
    flags.iter().map(|f| format!("--{}", f.name)).collect::<Vec<_>>().join(" ")
}

fn fish_flag(out: &mut String, condition: &str, flag: &Flag) {
    let needs = if flag.kind == Kind::Bool { "" } else { " -rF" };
    let _ = write!(out, "complete -c hull -n '{condition}' -l {}{needs}", flag.name);
    for alias in flag.aliases {
        let dash = if alias.len() == 1 { "-s" } else { "-l" };
        let _ = write!(out, " {dash} {alias}");
    }
    let _ = writeln!(out, " -d '{}'", flag.help.replace('\'', "\\'"));
}

/// The completion script of a shell.
pub(super) fn completion(shell: &str) -> Option<String> {
    let names: Vec<&str> = COMMANDS.iter().map(|c| c.name).collect();
    let mut out = String::new();
    match shell {
        "bash" => {
            out.push_str("_hull() {\n  local cur=${COMP_WORDS[COMP_CWORD]} cmd= i\n  for ((i = 1; i < COMP_CWORD; i++)); do\n    case ${COMP_WORDS[i]} in\n");
            let _ = writeln!(out, "      {}) cmd=${{COMP_WORDS[i]}}; break ;;", names.join("|"));
            out.push_str("    esac\n  done\n  case $cmd in\n");
            let _ = writeln!(
                out,
                "    '') COMPREPLY=($(compgen -W '{} {}' -- \"$cur\")) ;;",
                names.join(" "),
                long_flags(GLOBAL)
            );
            for command in COMMANDS {
                let ids = if command.takes_id { " $(hull list -q 2>/dev/null)" } else { "" };
                let _ = writeln!(
                    out,
                    "    {}) COMPREPLY=($(compgen -W \"{}{ids}\" -- \"$cur\")) ;;",
                    command.name,
                    long_flags(command.flags)
                );
            }
            out.push_str("  esac\n}\ncomplete -o default -F _hull hull\n");
        }
        "zsh" => {
            out.push_str("#compdef hull\n_hull() {\n  local -a commands\n  commands=(\n");
            for command in COMMANDS {
                let _ = writeln!(
                    out,
                    "    '{}:{}'",
                    command.name,
                    command.about.replace('\'', "'\\''").replace(':', "\\:")
                );
            }
            out.push_str(
                "  )\n  local word cmd=\n  for word in ${words[2,CURRENT-1]}; do\n    (( ${commands[(I)$word:*]} )) && { cmd=$word; break; }\n  done\n  case $cmd in\n",
            );
            let _ = writeln!(out, "    '') _describe command commands; compadd -- {} ;;", long_flags(GLOBAL));
            for command in COMMANDS {
                let ids = if command.takes_id { " $(hull list -q 2>/dev/null)" } else { "" };
                let _ = writeln!(out, "    {}) compadd -- {}{ids} ;;", command.name, long_flags(command.flags));
            }
            // The file is the function, loaded at the first completion; or it was sourced.
            out.push_str(
                "  esac\n  _files\n}\nif [[ $funcstack[1] == _hull ]]; then _hull \"$@\"; else compdef _hull hull; fi\n",
            );
        }
        "fish" => {
            let _ = writeln!(out, "complete -c hull -f");
            for flag in GLOBAL {
                fish_flag(&mut out, "__fish_use_subcommand", flag);
            }
            for command in COMMANDS {
                let quoted = command.about.replace('\'', "\\'");
                let _ = writeln!(out, "complete -c hull -n __fish_use_subcommand -a {} -d '{quoted}'", command.name);
                for flag in command.flags {
                    fish_flag(&mut out, &format!("__fish_seen_subcommand_from {}", command.name), flag);
                }
                if command.takes_id {
                    let _ = writeln!(
                        out,
                        "complete -c hull -n '__fish_seen_subcommand_from {}' -a '(hull list -q 2>/dev/null)'",
                        command.name
                    );
                }
            }
        }
        _ => return None,
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_is_about_what_there_is() {
        assert!(NOTES.iter().all(|(name, _)| COMMANDS.iter().any(|c| c.name == *name)));
        let text = |name| SECTIONS.iter().flat_map(|(_, all)| *all).find(|(n, _)| *n == name).unwrap().1;
        let landlock = text(crate::process::landlock::ANNOTATION);
        let rules = landlock.split_once('{').unwrap().1.split_once('}').unwrap().0;
        crate::process::landlock::Rules::parse(&format!("{{{rules}}}")).unwrap();
    }

    #[test]
    fn pages_and_completions_have_every_flag_of_every_command() {
        let pages = COMMANDS.iter().map(|c| (c.name, c.flags, man(Some(c)))).chain([("hull", GLOBAL, man(None))]);
        for (name, flags, page) in pages {
            for flag in flags {
                assert!(page.contains(&roff(&flag_words(flag))), "{name} --{}: not in its page", flag.name);
                assert!(!flag.help.is_empty() && !flag.help.starts_with(['.', '\'']), "{name} --{}", flag.name);
                for shell in ["bash", "zsh", "fish"] {
                    let script = completion(shell).unwrap();
                    let spelled =
                        if shell == "fish" { format!("-l {}", flag.name) } else { format!("--{}", flag.name) };
                    assert!(script.contains(&spelled), "{name} {spelled}: not completed by {shell}");
                }
            }
        }
    }
}
