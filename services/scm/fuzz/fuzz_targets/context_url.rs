//! The parser of context URLs: whatever comes in, no panic, and what is understood is understood again from its own page.
//! Run with `make fuzz FUZZ=services/scm/fuzz TARGET=context_url`.
#![no_main]

use berth_scm::domain::context::{Hosts, page_url, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(hosts) = Hosts::from_flags([
        "ghe.example.com=github",
        "code.example.com/gitlab=gitlab",
        "code.example.com/bitbucket=bitbucket-dc",
        "tfs.example.com/tfs=azure-devops",
        "git.lan:3000=gitea",
    ]) else {
        return;
    };
    if let Ok(context) = parse(text, &hosts) {
        let page = page_url(&context);
        assert_eq!(parse(&page, &hosts).as_ref(), Ok(&context), "{text:?} -> {page:?}");
        assert!(!context.clone_url.contains('@'));
    }
});
