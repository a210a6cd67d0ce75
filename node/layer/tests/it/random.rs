//! Archives made by chance, of few names, so that entries meet.

/// The same numbers for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % bound
    }

    pub(crate) fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

const NAMES: [&str; 10] = ["a", "b", "c", "a/b", "a/c", "./b/a", "c/a/b", "a//b/c", "/b/c", "c/b"];
const TARGETS: [&str; 4] = ["a", "b", "c", "b/a"];

/// What an archive holds besides plain entries.
#[derive(Clone, Copy)]
pub(crate) enum Marks {
    None,
    Deletions,
}

/// The text of each entry, and the archive.
pub(crate) fn archive(random: &mut Random, marks: Marks) -> (Vec<String>, Vec<u8>) {
    let mut builder = tar::Builder::new(Vec::new());
    let mut listing = Vec::new();
    // Over other layers more can be wrong, and of an archive in which anything is wrong nothing can be compared.
    let (names, most, kinds) = match marks {
        Marks::None => (&NAMES[..], 10, 9),
        Marks::Deletions => (&NAMES[3..], 5, 16),
    };
    for number in 0..1 + random.below(most) {
        let name = random.pick(names);
        // Folders of marks are described: whether a mark alone makes its folder, tools do not agree.
        let mut described = None;
        let (kind, name, link) = match random.below(kinds) {
            0..4 => (tar::EntryType::Regular, name.to_owned(), ""),
            4 | 5 => (tar::EntryType::Directory, name.to_owned(), ""),
            6 => (tar::EntryType::Symlink, name.to_owned(), random.pick(&TARGETS)),
            7 => (tar::EntryType::Link, name.to_owned(), random.pick(&NAMES)),
            8 => (tar::EntryType::Fifo, name.to_owned(), ""),
            9 | 10 => {
                described = Some(name);
                (tar::EntryType::Regular, format!("{name}/.wh..wh..opq"), "")
            }
            _ => {
                let (folder, leaf) = name.rsplit_once('/').map_or(("", name), |(folder, leaf)| (folder, leaf));
                described = Some(folder).filter(|folder| !folder.trim_matches(['.', '/']).is_empty());
                (tar::EntryType::Regular, format!("{folder}/.wh.{leaf}").trim_start_matches('/').to_owned(), "")
            }
        };
        if let Some(folder) = described {
            append(&mut builder, random, number, tar::EntryType::Directory, folder, "");
            listing.push(format!("Directory {folder}"));
        }
        append(&mut builder, random, number, kind, &name, link);
        listing.push(format!("{kind:?} {name} {link}"));
    }
    (listing, builder.into_inner().unwrap())
}

fn append(
    builder: &mut tar::Builder<Vec<u8>>,
    random: &mut Random,
    number: u64,
    kind: tar::EntryType,
    name: &str,
    link: &str,
) {
    let length = if kind == tar::EntryType::Regular { number * 100 } else { 0 };
    let content = vec![7; usize::try_from(length).unwrap()];
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode([0o644, 0o755, 0o4755, 0o1777][usize::try_from(random.below(4)).unwrap()]);
    header.set_uid(random.below(3) * 1000);
    header.set_gid(random.below(3) * 1000);
    header.set_mtime(1_000_000 + number);
    header.set_size(length);
    header.set_cksum();
    builder.append(&header, &content[..]).unwrap();
}
