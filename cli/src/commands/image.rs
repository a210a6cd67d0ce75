//! `berth image`: root's access to the node's image store as files. It needs no server, and does not disturb a running one.

use berth_node::home::Home as NodeHome;
use berth_node::image::layout::{Layout, Limits};
use berth_node::image::{base, import};

use crate::args::{Global, Image};
use crate::home::Home;
use crate::output;

/// An image on the node.
#[derive(serde::Serialize)]
struct Listed {
    reference: String,
    digest: String,
}

/// Builds, imports or lists images.
pub(crate) fn run(global: &Global, command: Image) -> anyhow::Result<()> {
    let home = Home::find(global.home.as_deref())?;
    home.prepare()?;
    let node = NodeHome::new(home.path());
    node.create()?;
    let layout = Layout::join(node.images(), Limits::default())?;
    match command {
        Image::BuildBase => {
            let digest = base::ensure(&layout, &|step| output::note(step))?;
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
            let listed = |(reference, digest)| Listed { reference, digest };
            let images: Vec<Listed> = layout.list()?.into_iter().map(listed).collect();
            output::result(global.output, &images, |images| {
                let rows: Vec<Vec<String>> =
                    images.iter().map(|image| vec![image.reference.clone(), image.digest.clone()]).collect();
                output::table(&["IMAGE", "DIGEST"], &rows)
            })
        }
    }
}
