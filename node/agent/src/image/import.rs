//! Importing an image from a file: an OCI layout (folder or tar) or what `docker save` writes, and making one from a plain root file system.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::document::{Descriptor, Index, Manifest};
use super::layout::{Layout, LayoutError, MAX_DOCUMENT_BYTES};
use super::pull::architecture;
use super::reference::{Digest, Reference};

/// The file cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It is no image.
    #[error("{} is not an image ({why}): give an OCI layout (folder or tar) or the output of `docker save`", path.display())]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// What is missing.
        why: String,
    },
    /// The store.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    layers: Vec<String>,
}

/// Imports the image in `source` under the name `reference`. Every blob is named by the digest of its content, so nothing that the file
/// claims is trusted.
///
/// # Errors
/// See [`ImportError`].
pub fn import(layout: &Layout, source: &Path, reference: &Reference) -> Result<Digest, ImportError> {
    let not_an_image = |why: &str| ImportError::NotAnImage { path: source.to_owned(), why: why.to_owned() };
    let members = read_members(layout, source)?;
    let document = |name: &str| -> Result<Option<Vec<u8>>, ImportError> {
        members.get(name).map(|digest| layout.document(digest)).transpose().map_err(ImportError::from)
    };
    let manifest = if let Some(bytes) = document("index.json")? {
        let index: Index = serde_json::from_slice(&bytes).map_err(|e| not_an_image(&format!("its index.json: {e}")))?;
        oci_manifest(layout, &index, 0).ok_or_else(|| not_an_image("its index names no image for this machine"))?
    } else if let Some(bytes) = document("manifest.json")? {
        let list: Vec<DockerManifest> =
            serde_json::from_slice(&bytes).map_err(|e| not_an_image(&format!("its manifest.json: {e}")))?;
        let first = list.into_iter().next().ok_or_else(|| not_an_image("its manifest.json is empty"))?;
        let member =
            |name: &String| members.get(name).copied().ok_or_else(|| not_an_image(&format!("{name} is missing")));
        let config = member(&first.config)?;
        let layers = first.layers.iter().map(member).collect::<Result<Vec<_>, _>>()?;
        put_manifest(layout, config, &layers)?
    } else {
        return Err(not_an_image("it has neither index.json nor manifest.json"));
    };
    layout.tag(reference, manifest)?;
    Ok(manifest)
}

/// Makes an image of one layer from the tar archive of a root file system.
///
/// # Errors
/// See [`ImportError`].
pub fn from_root_file_system(
    layout: &Layout,
    archive: impl Read,
    reference: &Reference,
    env: &[&str],
) -> Result<Digest, ImportError> {
    let mut archive = archive;
    let mut writer = layout.blob_writer()?;
    io::copy(&mut archive, &mut writer)
        .map_err(|source| ImportError::Read { path: "the root file system's archive".into(), source })?;
    let layer = writer.digest();
    layout.keep(writer, &layer, None)?;
    let config = serde_json::json!({
        "architecture": architecture(),
        "os": "linux",
        "config": { "User": "", "Env": env },
        "rootfs": { "type": "layers", "diff_ids": [layer] },
    });
    let config = layout.put(config.to_string().as_bytes())?;
    let manifest = put_manifest(layout, config, &[layer])?;
    layout.tag(reference, manifest)?;
    Ok(manifest)
}

fn put_manifest(layout: &Layout, config: Digest, layers: &[Digest]) -> Result<Digest, LayoutError> {
    let descriptor = |media_type: &str, digest: &Digest| Descriptor {
        media_type: media_type.to_owned(),
        digest: *digest,
        size: std::fs::metadata(layout.blob_path(digest)).map(|m| m.len()).unwrap_or(0),
        urls: Vec::new(),
        annotations: BTreeMap::new(),
        platform: None,
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some("application/vnd.oci.image.manifest.v1+json".to_owned()),
        config: descriptor("application/vnd.oci.image.config.v1+json", &config),
        layers: layers.iter().map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", layer)).collect(),
    };
    let bytes = serde_json::to_vec(&manifest).map_err(|source| LayoutError::Document { what: "manifest", source })?;
    layout.put(&bytes)
}

/// The manifest for this machine; indices may be nested, three deep is enough for every tool.
fn oci_manifest(layout: &Layout, index: &Index, depth: usize) -> Option<Digest> {
    let ours = |entry: &&Descriptor| {
        entry.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == architecture())
    };
    index.manifests.iter().filter(ours).find_map(|entry| {
        let bytes = layout.document(&entry.digest).ok()?;
        if serde_json::from_slice::<Manifest>(&bytes).is_ok() {
            return Some(entry.digest);
        }
        let nested = serde_json::from_slice::<Index>(&bytes).ok()?;
        (depth < 3).then(|| oci_manifest(layout, &nested, depth + 1)).flatten()
    })
}

/// Takes every file of the source into the store; returns which name has which content.
fn read_members(layout: &Layout, source: &Path) -> Result<BTreeMap<String, Digest>, ImportError> {
    // What the kernel did not say, the reader of the archive did: it is none.
    let read = |error: io::Error| match error.raw_os_error() {
        Some(_) => ImportError::Read { path: source.to_owned(), source: error },
        None => ImportError::NotAnImage { path: source.to_owned(), why: error.to_string() },
    };
    let mut members = BTreeMap::new();
    let mut keep = |name: String, mut content: Box<dyn Read + '_>| -> Result<(), ImportError> {
        let mut writer = layout.blob_writer()?;
        io::copy(&mut content, &mut writer).map_err(read)?;
        let digest = writer.digest();
        layout.keep(writer, &digest, None)?;
        members.insert(name, digest);
        Ok(())
    };
    if source.is_dir() {
        for folder in ["", "blobs/sha256"] {
            for entry in std::fs::read_dir(source.join(folder)).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                    let name = Path::new(folder).join(entry.file_name()).to_string_lossy().into_owned();
                    keep(name, Box::new(File::open(entry.path()).map_err(read)?))?;
                }
            }
        }
        return Ok(members);
    }
    let mut archive = tar::Archive::new(File::open(source).and_then(super::unpack::decompress).map_err(read)?);
    let mut links = Vec::new();
    for entry in archive.entries().map_err(read)? {
        let entry = entry.map_err(read)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        let kind = entry.header().entry_type();
        if kind.is_file() {
            keep(name, Box::new(entry))?;
        } else if kind.is_symlink() || kind.is_hard_link() {
            // `docker save` of old writes a layer that it has already written as a link to it.
            let target = entry.link_name_bytes().map(|t| String::from_utf8_lossy(&t).into_owned()).unwrap_or_default();
            links.push((name, target));
        }
    }
    for (name, target) in links {
        let target = target.trim_start_matches("../").to_owned();
        if let Some(digest) = members.get(&target).copied() {
            members.insert(name, digest);
        }
    }
    if members.is_empty() {
        return Err(ImportError::NotAnImage {
            path: source.to_owned(),
            why: format!("no files in it, or over {MAX_DOCUMENT_BYTES} bytes"),
        });
    }
    Ok(members)
}
