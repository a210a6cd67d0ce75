//! `berth image`: the node's image store, reached as files by root; needs no server.

use berth_node::home::Home as NodeHome;
use berth_node::image::layout::{Layout, Limits};
use berth_node::image::{base, import};
use rustix::fs::{FlockOperation, flock};

use crate::args::{Global, Image};
use crate::exit::{self, Exit};
use crate::home::Home;
use crate::output;

/// Builds, imports or lists images.
pub(crate) fn run(global: &Global, command: Image) -> anyhow::Result<()> {
    let home = Home::find(global.home.as_deref())?;
    home.prepare()?;
    let node = NodeHome::new(home.path());
    node.create()?;
    let Some(_lock) = lock(&node)? else { return with_server(&node, &command) };
    let layout = Layout::open(node.images(), Limits::default())?;
    match command {
        Image::BuildBase => {
            let digest = base::ensure(&layout, &node.images(), &|step| output::note(step))?;
            output::result(
                global.output,
                &serde_json::json!({ "reference": base::BASE, "digest": digest.to_string() }),
                |_| format!("{} {digest}", base::BASE),
            )
        }
        Image::Import { path, reference } => {
            let reference = reference.parse()?;
            let digest = import::import(&layout, &path, &reference)?;
            output::result(
                global.output,
                &serde_json::json!({ "reference": reference.to_string(), "digest": digest.to_string() }),
                |_| format!("{reference} {digest}"),
            )
        }
        Image::List => {
            let images = layout.list()?;
            output::result(global.output, &images, |images| {
                let rows: Vec<Vec<String>> =
                    images.iter().map(|(name, digest)| vec![name.clone(), digest.clone()]).collect();
                output::table(&["IMAGE", "DIGEST"], &rows)
            })
        }
    }
}

/// The node agent's lock; none when a server holds it. Opening the store clears what a crash left half done, so two may not.
fn lock(node: &NodeHome) -> anyhow::Result<Option<std::fs::File>> {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(node.lock())?;
    Ok(flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok().then_some(file))
}

fn with_server(node: &NodeHome, command: &Image) -> anyhow::Result<()> {
    let built = std::fs::read_to_string(node.images().join("index.json")).is_ok_and(|index| index.contains(base::BASE));
    match command {
        Image::BuildBase if built => output::write(format!("{} is built\n", base::BASE).as_bytes()),
        _ => {
            Err(Exit::new(exit::CONFLICT, "the server uses the image store: stop it first with `berth server stop`")
                .into())
        }
    }
}
