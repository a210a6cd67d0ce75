//! The order in which tasks and services start: everything that a start needs, in groups whose members may start together.

use std::collections::{BTreeMap, BTreeSet};

use super::file::AutomationsFile;

/// Something with keys that depend on each other.
pub trait Graph {
    /// What a key depends on; `None` if there is no such key.
    fn depends_on(&self, key: &str) -> Option<&[String]>;
}

impl Graph for AutomationsFile {
    fn depends_on(&self, key: &str) -> Option<&[String]> {
        Self::depends_on(self, key)
    }
}

/// Groups of keys, in order; each key's dependencies are in earlier groups.
pub type Groups = Vec<Vec<String>>;

/// Plans a start of these keys: the keys and everything that they depend on. Keys that do not exist, and cycles, are left out; a parsed file
/// has neither.
#[must_use]
pub fn plan<'a>(file: &'a impl Graph, keys: impl IntoIterator<Item = &'a str>) -> Groups {
    let mut wanted = BTreeSet::new();
    let mut open: Vec<&'a str> = keys.into_iter().collect();
    while let Some(key) = open.pop() {
        if let Some(depends_on) = file.depends_on(key)
            && wanted.insert(key.to_owned())
        {
            open.extend(depends_on.iter().filter_map(|key| Some(file.depends_on(key).map(|_| key)?.as_str())));
        }
    }
    let mut groups = Groups::new();
    let mut done = BTreeSet::new();
    while done.len() < wanted.len() {
        let ready: Vec<String> = wanted
            .iter()
            .filter(|key| !done.contains(*key))
            .filter(|key| file.depends_on(key).unwrap_or_default().iter().all(|needed| done.contains(needed)))
            .cloned()
            .collect();
        if ready.is_empty() {
            break;
        }
        done.extend(ready.iter().cloned());
        groups.push(ready);
    }
    groups
}

/// A cycle of dependencies, if there is one; the last key depends on the first.
#[must_use]
pub fn cycle(file: &AutomationsFile) -> Option<Vec<String>> {
    /// How far the search has come with a key.
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        OnPath,
        Done,
    }
    let mut marks: BTreeMap<&str, Mark> = BTreeMap::new();
    for start in file.tasks.keys().chain(file.services.keys()) {
        // An explicit stack: a chain of hundreds must not use up the thread's.
        let mut path: Vec<(&str, usize)> = vec![(start, 0)];
        while let Some((key, next)) = path.last_mut() {
            let key = *key;
            if *next == 0 {
                match marks.get(key) {
                    Some(_) => {
                        path.pop();
                        continue;
                    }
                    None => {
                        marks.insert(key, Mark::OnPath);
                    }
                }
            }
            let needed = file.depends_on(key).unwrap_or_default().get(*next);
            *next += 1;
            match needed {
                None => {
                    marks.insert(key, Mark::Done);
                    path.pop();
                }
                Some(needed) if marks.get(needed.as_str()) == Some(&Mark::OnPath) => {
                    let from = path.iter().position(|(on_path, _)| on_path == needed).unwrap_or(0);
                    return Some(path.iter().skip(from).map(|(key, _)| (*key).to_owned()).collect());
                }
                Some(needed) => path.push((needed, 0)),
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::file::Task;

    fn file(edges: &[(&str, &[&str])]) -> AutomationsFile {
        let tasks = edges
            .iter()
            .map(|(key, depends_on)| {
                let task = Task {
                    name: (*key).to_owned(),
                    description: String::new(),
                    command: Some("true".to_owned()),
                    triggered_by: vec![],
                    depends_on: depends_on.iter().map(|key| (*key).to_owned()).collect(),
                    prebuild_requires_success: false,
                };
                ((*key).to_owned(), task)
            })
            .collect();
        AutomationsFile { tasks, ..AutomationsFile::default() }
    }

    #[test]
    fn a_diamond_in_groups() {
        let file = file(&[("a", &[]), ("b", &["a"]), ("c", &["a"]), ("d", &["b", "c"]), ("x", &[])]);
        assert_eq!(plan(&file, ["d"]), [vec!["a"], vec!["b", "c"], vec!["d"]]);
        assert_eq!(plan(&file, ["x", "b"]), [vec!["a", "x"], vec!["b"]]);
        assert_eq!(plan(&file, ["nosuch"]), Groups::new());
        assert_eq!(cycle(&file), None);
    }

    #[test]
    fn a_circle_of_dependencies_is_found_and_named() {
        let names = |file: &AutomationsFile| cycle(file).unwrap();
        assert_eq!(names(&file(&[("a", &["b"]), ("b", &["c"]), ("c", &["a"])])), ["a", "b", "c"]);
        assert_eq!(names(&file(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])])), ["b", "c"]);
        assert_eq!(names(&file(&[("a", &["a"])])), ["a"]);
    }

    proptest! {
        #[test]
        fn plans_respect_every_dependency_and_circles_are_real(edges in prop::collection::vec((0_usize..12, 0_usize..12), 0..40), wanted in 0_usize..12) {
            let names: Vec<String> = (0..12).map(|number| format!("t{number}")).collect();
            let needs: Vec<Vec<&str>> = (0..12)
                .map(|from| {
                    let mut to: Vec<&str> = edges.iter().filter(|(a, _)| *a == from).map(|(_, b)| names[*b].as_str()).collect();
                    to.sort_unstable();
                    to.dedup();
                    to
                })
                .collect();
            let rows: Vec<(&str, &[&str])> = names.iter().map(String::as_str).zip(needs.iter().map(Vec::as_slice)).collect();
            let file = file(&rows);
            match cycle(&file) {
                Some(cycle) => {
                    for (at, key) in cycle.iter().enumerate() {
                        let next = &cycle[(at + 1) % cycle.len()];
                        prop_assert!(file.depends_on(key).unwrap().contains(next));
                    }
                }
                None => {
                    let groups = plan(&file, [names[wanted].as_str()]);
                    let position = |key: &String| groups.iter().position(|group| group.contains(key));
                    prop_assert_eq!(groups.last().map(Vec::as_slice), Some(&[names[wanted].clone()][..]));
                    for key in groups.iter().flatten() {
                        for needed in file.depends_on(key).unwrap() {
                            prop_assert!(position(needed) < position(key));
                        }
                    }
                }
            }
        }
    }
}
