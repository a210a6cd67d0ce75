use berth_workspace_crd::Repository;

use super::*;

fn checkout(reference: Option<&str>, branch: Option<&str>, commit: Option<&str>) -> Checkout {
    Checkout {
        repository: Repository {
            clone_url: "https://git.example.com/a/b.git".to_owned(),
            host: "git.example.com".to_owned(),
            owner: "a".to_owned(),
            name: "b".to_owned(),
        },
        reference: reference.map(str::to_owned),
        branch: branch.map(str::to_owned),
        commit: commit.map(str::to_owned),
        path: "/workspace/b".to_owned(),
    }
}

const COMMIT: &str = "0123456789012345678901234567890123456789";

fn tails(checkout: &Checkout) -> Vec<String> {
    let skip = git(false).len();
    commands(checkout).iter().map(|command| command.argv[skip..].join(" ")).collect()
}

#[test]
fn each_kind_of_context_has_its_commands() {
    let url = "https://git.example.com/a/b.git /workspace/b";
    assert_eq!(
        tails(&checkout(Some("refs/heads/f/x"), Some("f/x"), Some(COMMIT))),
        [
            format!("clone --progress --no-recurse-submodules --branch f/x -- {url}"),
            format!("-C /workspace/b reset --quiet --hard {COMMIT} --"),
        ]
    );
    assert_eq!(tails(&checkout(None, None, None)), [format!("clone --progress --no-recurse-submodules -- {url}")]);
    assert_eq!(
        tails(&checkout(Some("refs/pull/7/head"), Some("pr-7"), Some(COMMIT)))[1..],
        [
            "-C /workspace/b fetch --progress --no-recurse-submodules -- origin refs/pull/7/head".to_owned(),
            format!("-C /workspace/b checkout --quiet -B pr-7 {COMMIT} --"),
        ]
    );
    assert_eq!(
        tails(&checkout(Some("refs/tags/v1"), None, Some(COMMIT)))[1..],
        [format!("-C /workspace/b checkout --quiet --detach {COMMIT} --")]
    );
}

#[test]
fn options_and_odd_urls_do_not_reach_git() {
    let allow = |host: &str, port: u16| host == "127.0.0.1" && port == 8080;
    assert_eq!(check(&checkout(Some("refs/heads/main"), Some("main"), Some(COMMIT)), allow), Ok(()));
    for url in [
        "ext::sh -c id",
        "--upload-pack=x",
        "file:///etc",
        "ssh://git@x/y",
        "git://x/y",
        "http://git.example.com/a",
        "https://u:p@x.com/a",
        "https://u@x.com/a",
        "https://x.com/a\nb",
        "http://127.0.0.1:8081/a",
    ] {
        let mut bad = checkout(None, None, None);
        bad.repository.clone_url = url.to_owned();
        assert!(matches!(check(&bad, allow), Err(BadCheckout::Url(_))), "{url:?}");
    }
    let mut plain = checkout(None, None, None);
    plain.repository.clone_url = "http://127.0.0.1:8080/a".to_owned();
    assert_eq!(check(&plain, allow), Ok(()));
    assert!(commands(&plain)[0].argv.contains(&"protocol.http.allow=always".to_owned()));
    for name in ["-h", "--upload-pack=x", "a b", "a..b", "a\nb", "", "a@{1}"] {
        assert!(check(&checkout(Some(name), None, None), allow).is_err(), "{name:?}");
        assert!(check(&checkout(None, Some(name), None), allow).is_err(), "{name:?}");
        assert!(check(&checkout(None, None, Some(name)), allow).is_err(), "{name:?}");
    }
    for path in ["relative", "/", "/a/../b", "/a\nb"] {
        let mut bad = checkout(None, None, None);
        bad.path = path.to_owned();
        assert!(matches!(check(&bad, allow), Err(BadCheckout::Path(_))), "{path:?}");
    }
}

#[test]
fn complaints_are_told_apart() {
    let checkout = checkout(Some("refs/heads/main"), Some("main"), Some(COMMIT));
    let cases = [
        (
            "fatal: could not read Username for 'https://git.example.com': terminal prompts disabled",
            "git-credential add git.example.com",
            false,
        ),
        ("fatal: write error: No space left on device", "bigger disk", false),
        ("error: unable to write file noise\nfatal: unable to checkout working tree", "bigger disk", false),
        ("fatal: unable to access 'https://…': Could not resolve host: git.example.com", "Could not resolve", true),
        ("remote: Repository not found.\nfatal: repository 'https://…' not found", "does not exist", false),
        (
            "warning: Could not find remote branch main to clone.\nfatal: Remote branch main not found in upstream origin",
            "has no main",
            false,
        ),
        ("fatal: early EOF\nfatal: fetch-pack: invalid index-pack output", "early EOF", true),
    ];
    for (stderr, part, transient) in cases {
        let diagnosis = diagnose(stderr, &checkout);
        assert!(diagnosis.message.contains(part) && diagnosis.transient == transient, "{stderr}: {diagnosis:?}");
    }
}

#[test]
fn progress_is_the_newest_line() {
    assert_eq!(
        progress("remote: x\rReceiving objects:  10% (1/10)\rReceiving objects:  20% (2/10)\r").as_deref(),
        Some("Receiving objects:  20% (2/10)")
    );
    assert_eq!(progress("fatal: no"), None);
    assert_eq!(progress("remote: 5%\x1b]0;mine\x07\n").as_deref(), Some("remote: 5%\u{fffd}]0;mine\u{fffd}"));
}
