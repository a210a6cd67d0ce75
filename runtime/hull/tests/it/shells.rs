//! What shells make of completion scripts: each is given a line, and completes it.

use std::path::Path;
use std::process::Command;

/// Completes `line` by the script of a program, in the shell itself; none where that is not installed.
pub(crate) fn complete(shell: &str, program: &Path, script: &Path, line: &str) -> Option<String> {
    // Scripts ask the program too.
    let own = program.parent().into_iter().map(Path::to_owned);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(own.chain(std::env::split_paths(&path))).unwrap();
    let commands = match shell {
        "bash" => BASH,
        "zsh" => ZSH,
        _ => FISH,
    };
    let safe = match shell {
        "bash" => "--norc",
        "zsh" => "-f",
        _ => "--no-config",
    };
    let answer = tempfile::tempdir().unwrap();
    let args = [script, line.as_ref(), answer.path()];
    let output =
        match Command::new(shell).args([safe, "-c", commands]).arg("complete").args(args).env("PATH", path).output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            output => output.unwrap(),
        };
    let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(output.stderr.is_empty(), "{shell}: {}", text(&output.stderr));
    Some(text(&output.stdout))
}

/// The function that is registered for the program fills `COMPREPLY`.
const BASH: &str = r#"
source "$1" || exit
COMP_WORDS=($2) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
function=$(complete -p "${COMP_WORDS[0]}" | grep -o -- '-F [^ ]*')
${function#-F } "${COMP_WORDS[0]}" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
echo "${COMPREPLY[@]}"
"#;

/// Only its line editor completes: one in a terminal gets the line and a tab, and then has to tell what it has.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty inner zsh -f -i
zpty -w inner "autoload -U compinit; compinit -u -D; source ${(q)1} 2> ${(q)3}/errors"
zpty -w inner "tell() { print -r -- \$BUFFER > ${(q)3}/told; exit }; zle -N tell; bindkey '^X' tell; : > ${(q)3}/ready"
wait_for() { for _ in {1..400}; do [[ -e $1 ]] && return; sleep 0.05; done; print -u 2 "$1 did not come" }
wait_for $3/ready
zpty -w -n inner "$2"$'\t\x18'
wait_for $3/told
cat $3/errors >&2
cat $3/told
"#;

/// The program's own completer can be asked.
const FISH: &str = r#"
set argv $argv[2..]
source $argv[1]
complete -C $argv[2]
"#;
