//! What the man pages say beyond the table of commands.

/// Paragraphs of a command's page.
pub(super) const NOTES: &[(&str, &str)] = &[
    (
        "create",
        "With several ids, each container has the bundle of its name below the bundle directory, and either all are created or none.",
    ),
    (
        "delete",
        "A container that runs is refused without --force; one that was created and not started is ended. What a runtime that was killed has left is removed from the journal that it kept, and the log says what that was.",
    ),
    (
        "exec",
        "With --session, the socket on standard input takes requests until the container ends: see ExecSession of the library.",
    ),
    (
        "explain",
        "Without an option, prints all that decides what the container may do. With one, says what would come of that path, system call or capability, and which property of the configuration decides it.",
    ),
    ("run", "The container is deleted when its process ends, if hull stays in the foreground and --keep is not given."),
    (
        "start",
        "A startContainer or poststart hook that fails destroys the container; then the poststop hooks run. A program that cannot be started leaves it stopped, to be deleted.",
    ),
    ("state", "pidStartTime, in clock ticks after boot, tells the process from a later one of the same id."),
    (
        "update",
        "The file has the form of linux.resources. Sizes may end with k, m or g, and are multiples of 1024 then.",
    ),
    (
        "wait",
        "Prints the exit code, or 128 plus the signal, and goes on to do so until the container is deleted. A status that went to another process before anybody asked is not known.",
    ),
];

/// Sections of the program's own page: heading, and paragraphs with their names.
pub(super) const SECTIONS: &[(&str, &[(&str, &str)])] = &[
    (
        "ANNOTATIONS",
        &[
            (
                "dev.hull.landlock",
                "Landlock rules as JSON, such as {\"readOnly\": [\"/usr\", \"/lib\"], \"readWrite\": [\"/tmp\"], \"execute\": [\"/usr/bin\", \"/lib\"], \"bindPorts\": [8080], \"connectPorts\": [443]}. Paths are those of the container, and stand for all below them; what is executed may be read. What is not named is refused, ports only where their list is given. no_new_privs is set too.",
            ),
            ("run.oci.handler", "wasm: the process is a WebAssembly module, which hull-wasm runs."),
            ("module.wasm.image/variant", "compat: the same. compat-smart: the same if the program is a module."),
            ("run.oci.keep_original_groups", "The process keeps the groups of hull's caller."),
            ("org.systemd.property.NAME", "With systemd: a property of the unit, in the form of GVariant texts."),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            ("NOTIFY_SOCKET", "systemd's socket: the container gets one of its own, and its READY=1 is passed on."),
            ("LISTEN_FDS", "descriptors of socket activation, passed on to the program."),
            ("XDG_RUNTIME_DIR", "where records go for a user who is not root."),
        ],
    ),
    (
        "FILES",
        &[
            ("/run/hull", "records of containers, for root."),
            ("/etc/hull/wasm.json", "how WebAssembly programs are run."),
        ],
    ),
];
