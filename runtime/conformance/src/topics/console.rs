//! config.md "terminal" and "consoleSize", config-linux.md /dev/console; the console socket as runc has it.

use std::io::Write;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::bundle::Bundle;
use crate::console::{Receiver, read_until};
use crate::context::Context;
use crate::suite::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test("socket", "a terminal's other end is sent over --console-socket", socket),
    test(
        "controlling",
        "the terminal is the controlling terminal and stdin, stdout, stderr of the process",
        controlling,
    ),
    test("size", "consoleSize: width and height", size),
    test("dev-console", "/dev/console is set up if terminal is enabled, by bind-mounting the terminal", dev_console),
    test("owner", "the terminal belongs to the user of the process", owner),
    test("without-socket", "create with a terminal but without a console socket is an error", without_socket),
    test("socket-without-terminal", "a console socket without a terminal is an error", socket_without_terminal),
    test("exec-tty", "exec --tty with a console socket", exec_tty),
    test("user-namespace", "a terminal in a user namespace", user_namespace),
];

fn create(bundle: &mut Bundle<'_>, receiver: &Receiver) -> Result<std::os::fd::OwnedFd> {
    bundle.set("/process/terminal", json!(true)).save()?;
    let (path, socket) = (bundle.path.to_string_lossy().into_owned(), receiver.path().to_string_lossy().into_owned());
    let create = bundle.runtime(&["create", "--bundle", &path, "--console-socket", &socket, &bundle.id])?;
    create.ok().context("create")?;
    let (_, mut descriptors) = receiver.receive()?;
    ensure!(descriptors.len() == 1, "{} descriptors", descriptors.len());
    descriptors.pop().context("no descriptor")
}

fn shown(context: &Context, change: impl Fn(&mut Bundle<'_>) -> Result<()>, script: &str) -> Result<String> {
    let receiver = Receiver::new()?;
    let mut bundle = context.bundle()?;
    change(&mut bundle)?;
    bundle.script(&format!("{script}; echo the-end"));
    let terminal = create(&mut bundle, &receiver)?;
    bundle.start()?.ok()?;
    Ok(read_until(&terminal, "the-end")?.replace('\r', ""))
}

fn socket(context: &Context) -> Result<()> {
    let receiver = Receiver::new()?;
    let mut bundle = context.bundle()?;
    bundle.script("read line; echo got $line");
    let terminal = create(&mut bundle, &receiver)?;
    bundle.start()?.ok()?;
    std::fs::File::from(terminal.try_clone()?).write_all(b"something\n")?;
    let text = read_until(&terminal, "got something")?;
    ensure!(text.contains("got something"), "{text:?}");
    bundle.wait_for("stopped")
}

fn controlling(context: &Context) -> Result<()> {
    let text = shown(
        context,
        |_| Ok(()),
        "tty; for n in 0 1 2; do readlink /proc/self/fd/$n; done; : < /dev/tty && echo tty-opens",
    )?;
    ensure!(text.matches("/dev/pts/0").count() == 4 && text.contains("tty-opens"), "{text:?}");
    Ok(())
}

fn size(context: &Context) -> Result<()> {
    let set = |bundle: &mut Bundle<'_>| {
        bundle.set("/process/consoleSize", json!({"height": 33, "width": 99}));
        Ok(())
    };
    let text = shown(context, set, "stty size")?;
    ensure!(text.contains("33 99"), "{text:?}");
    Ok(())
}

fn dev_console(context: &Context) -> Result<()> {
    let text = shown(context, |_| Ok(()), "stat -c '%F %t' /dev/console; echo to-console > /dev/console")?;
    ensure!(text.contains("character special file 88") && text.contains("to-console"), "{text:?}");
    Ok(())
}

fn owner(context: &Context) -> Result<()> {
    let set = |bundle: &mut Bundle<'_>| {
        bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
        Ok(())
    };
    let text = shown(context, set, "stat -c %u $(tty)")?;
    ensure!(text.contains("1000"), "{text:?}");
    Ok(())
}

fn without_socket(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/process/terminal", json!(true));
    ensure!(!bundle.create()?.success(), "create succeeded");
    Ok(())
}

fn socket_without_terminal(context: &Context) -> Result<()> {
    let receiver = Receiver::new()?;
    let bundle = context.bundle()?;
    bundle.save()?;
    let (path, socket) = (bundle.path.to_string_lossy().into_owned(), receiver.path().to_string_lossy().into_owned());
    let create = bundle.runtime(&["create", "--bundle", &path, "--console-socket", &socket, &bundle.id])?;
    ensure!(!create.success(), "create succeeded");
    Ok(())
}

fn exec_tty(context: &Context) -> Result<()> {
    let receiver = Receiver::new()?;
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let socket = receiver.path().to_string_lossy().into_owned();
    bundle
        .runtime(&[
            "exec",
            "--tty",
            "--detach",
            "--console-socket",
            &socket,
            &bundle.id,
            "sh",
            "-c",
            "tty; echo the-end",
        ])?
        .ok()?;
    let (_, descriptors) = receiver.receive()?;
    let text = read_until(descriptors.first().context("no descriptor")?, "the-end")?;
    ensure!(text.contains("/dev/pts/"), "{text:?}");
    Ok(())
}

fn user_namespace(context: &Context) -> Result<()> {
    let text = shown(context, |bundle| bundle.user_namespace().map(drop), "tty; stat -c %u $(tty)")?;
    ensure!(text.contains("/dev/pts/0\n0"), "{text:?}");
    Ok(())
}
