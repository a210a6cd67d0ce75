//! Importing an image from a file: an OCI layout (folder or tar) or what `docker save` writes, and making one from a plain root file system.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use berth_layer::archive::{Archive, Kind};
use serde::Deserialize;

use super::document::{Descriptor, Index, Manifest};
use super::layout::{Layout, LayoutError, MAX_DOCUMENT_BYTES, REF_NAME};
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
    /// It holds more than one.
    #[error("{} holds several images: say which one as {}:TAG, where TAG is one of {}", path.display(), path.display(), tags.join(", "))]
    Several {
        /// The file.
        path: PathBuf,
        /// Their names.
        tags: Vec<String>,
    },
    /// It holds others than the one asked for.
    #[error("{} holds no image {tag:?}, but {}", path.display(), tags.join(", "))]
    NoSuchTag {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        tag: String,
        /// What there is.
        tags: Vec<String>,
    },
    /// The store.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    // `null` in the archive of an image that was saved by its id.
    repo_tags: Option<Vec<String>>,
    config: String,
    layers: Vec<String>,
}

/// An image that a file holds.
#[derive(Debug)]
struct Candidate {
    names: Vec<String>,
    manifest: Digest,
}

/// Imports the image in `source` under the name `reference`: `path`, or `path:tag` where it holds several. Every blob is named by the digest of its content, so nothing that the file
/// claims is trusted.
///
/// # Errors
/// See [`ImportError`].
pub fn import(layout: &Layout, source: &Path, reference: &Reference) -> Result<Digest, ImportError> {
    let (source, tag) = split_tag(source);
    let not_an_image = |why: &str| ImportError::NotAnImage { path: source.to_owned(), why: why.to_owned() };
    let members = read_members(layout, source)?;
    let document = |name: &str| -> Result<Option<Vec<u8>>, ImportError> {
        members.get(name).map(|digest| layout.document(digest)).transpose().map_err(ImportError::from)
    };
    let candidates = if let Some(bytes) = document("index.json")? {
        let index: Index = serde_json::from_slice(&bytes).map_err(|e| not_an_image(&format!("its index.json: {e}")))?;
        oci_candidates(layout, &index)
    } else if let Some(bytes) = document("manifest.json")? {
        let list: Vec<DockerManifest> =
            serde_json::from_slice(&bytes).map_err(|e| not_an_image(&format!("its manifest.json: {e}")))?;
        let member =
            |name: &String| members.get(name).copied().ok_or_else(|| not_an_image(&format!("{name} is missing")));
        let mut candidates = Vec::new();
        for image in list {
            let config = member(&image.config)?;
            let layers = image.layers.iter().map(member).collect::<Result<Vec<_>, _>>()?;
            let manifest = put_manifest(layout, config, &layers)?;
            candidates.push(Candidate { names: image.repo_tags.unwrap_or_default(), manifest });
        }
        candidates
    } else {
        return Err(not_an_image("it has neither index.json nor manifest.json"));
    };
    let manifest = choose(candidates, source, tag)?.ok_or_else(|| not_an_image("it holds none for this machine"))?;
    layout.tag(reference, manifest)?;
    Ok(manifest)
}

/// `path:tag`, where there is no file of that whole name.
fn split_tag(source: &Path) -> (&Path, Option<&str>) {
    // A tag may be a whole name with colons and slashes in it, so that the longest path counts that exists.
    let text = source.to_str().filter(|_| !source.exists()).unwrap_or_default();
    text.rmatch_indices(':')
        .map(|(at, _)| (Path::new(&text[..at]), Some(&text[at + 1..])))
        .find(|(path, _)| path.exists())
        .unwrap_or((source, None))
}

/// The image that is meant: the one of this tag, or the only one.
fn choose(candidates: Vec<Candidate>, path: &Path, tag: Option<&str>) -> Result<Option<Digest>, ImportError> {
    let path = path.to_owned();
    let tags = || candidates.iter().flat_map(|candidate| candidate.names.iter().cloned()).collect::<Vec<_>>();
    let is_called = |candidate: &&Candidate, tag: &str| {
        let ends = format!(":{tag}");
        candidate.names.iter().any(|name| name == tag || name.ends_with(&ends))
    };
    let found: Vec<&Candidate> =
        candidates.iter().filter(|candidate| tag.is_none_or(|tag| is_called(candidate, tag))).collect();
    match (found.as_slice(), tag) {
        ([], Some(tag)) => Err(ImportError::NoSuchTag { path, tag: tag.to_owned(), tags: tags() }),
        ([first, rest @ ..], _)
            if rest.iter().any(|other| other.manifest != first.manifest && !other.names.is_empty()) =>
        {
            Err(ImportError::Several { path, tags: tags() })
        }
        (found, _) => Ok(found.first().map(|candidate| candidate.manifest)),
    }
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

/// The images of a layout's index that are for this machine. Tools write the whole name, the tag alone, or no name.
fn oci_candidates(layout: &Layout, index: &Index) -> Vec<Candidate> {
    let candidate = |entry: &Descriptor| {
        let names = ["io.containerd.image.name", REF_NAME].iter().find_map(|key| entry.annotations.get(*key));
        let only = Index { manifests: vec![entry.clone()], ..index.clone() };
        let manifest = oci_manifest(layout, &only, 0)?;
        Some(Candidate { names: names.cloned().into_iter().collect(), manifest })
    };
    index.manifests.iter().filter_map(candidate).collect()
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
    let mut archive = Archive::new(File::open(source).and_then(berth_layer::decompress).map_err(read)?);
    let mut links = Vec::new();
    while let Some(entry) = archive.next_entry().map_err(read)? {
        let name = entry.name.to_string_lossy().trim_start_matches("./").to_owned();
        match entry.kind {
            Kind::File => keep(name, Box::new(&mut archive))?,
            // `docker save` of old writes a layer that it has already written as a link to it.
            Kind::Symlink | Kind::HardLink => links.push((name, entry.link.to_string_lossy().into_owned())),
            _ => {}
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A layout with one image for each of these: its annotations, and a word in its configuration that makes it another one.
    fn layout_folder(images: &[(Value, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let blobs = folder.path().join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        let put = |content: String| {
            let digest = Digest::of(content.as_bytes());
            std::fs::write(blobs.join(digest.hex()), &content).unwrap();
            json!({ "mediaType": "x", "digest": digest, "size": content.len() })
        };
        let manifests: Vec<Value> = images
            .iter()
            .map(|(annotations, word)| {
                let config = put(json!({ "author": word }).to_string());
                let mut entry = put(json!({ "schemaVersion": 2, "config": config, "layers": [] }).to_string());
                entry["annotations"] = annotations.clone();
                entry
            })
            .collect();
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        std::fs::write(folder.path().join("index.json"), index.to_string()).unwrap();
        folder
    }

    /// What is imported from here: the word of its configuration, or the refusal.
    fn imported(path: &Path) -> Result<String, String> {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::open(home.path().join("images"), crate::image::layout::Limits::default()).unwrap();
        let reference: Reference = "berth/x:1".parse().unwrap();
        let digest = import(&layout, path, &reference).map_err(|error| error.to_string())?;
        assert_eq!(layout.lookup(&reference).unwrap(), Some(digest));
        let manifest: Manifest = serde_json::from_slice(&layout.document(&digest).unwrap()).unwrap();
        let config: Value = serde_json::from_slice(&layout.document(&manifest.config.digest).unwrap()).unwrap();
        Ok(config["author"].as_str().unwrap().to_owned())
    }

    #[test]
    fn of_several_images_the_one_that_is_named_is_taken() {
        let named = |name: &str| json!({ "org.opencontainers.image.ref.name": name });
        let full = json!({
            "io.containerd.image.name": "docker.io/team/app:9", "org.opencontainers.image.ref.name": "9",
        });
        let one = layout_folder(&[(named("v1"), "one")]);
        let nameless = layout_folder(&[(json!({}), "one")]);
        let many = layout_folder(&[(named("v1"), "one"), (named("v2"), "two"), (full, "nine")]);
        // Two names of the same image leave no choice to make.
        let twice = layout_folder(&[(named("v1"), "one"), (named("latest"), "one")]);
        let at = |folder: &tempfile::TempDir, tag: &str| PathBuf::from(format!("{}{tag}", folder.path().display()));
        for (folder, tag, expected) in [
            (&one, "", "one"),
            (&one, ":v1", "one"),
            (&nameless, "", "one"),
            (&many, ":v1", "one"),
            (&many, ":v2", "two"),
            (&many, ":9", "nine"),
            (&many, ":docker.io/team/app:9", "nine"),
            (&twice, "", "one"),
            (&twice, ":latest", "one"),
        ] {
            assert_eq!(imported(&at(folder, tag)).as_deref(), Ok(expected), "{tag:?}");
        }
        let refused = imported(&at(&many, "")).unwrap_err();
        assert!(refused.contains(":TAG, where TAG is one of v1, v2, docker.io/team/app:9"), "{refused}");
        let refused = imported(&at(&many, ":v3")).unwrap_err();
        assert!(refused.ends_with("holds no image \"v3\", but v1, v2, docker.io/team/app:9"), "{refused}");
        let missing = imported(&at(&many, "/nothing:v1")).unwrap_err();
        assert!(missing.contains("nothing:v1 cannot be read"), "{missing}");
    }
}
