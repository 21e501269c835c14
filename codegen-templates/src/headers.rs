//! The CUDA headers that kernels include, as text: what NVRTC gets in memory, and what an emitted crate carries.

/// Every header: the name that `#include` spells, and its text.
pub const HEADERS: &[(&str, &str)] = &[
    ("lapidary/prelude.cuh", include_str!("../cuda/lapidary/prelude.cuh")),
    ("lapidary/trace.cuh", include_str!("../cuda/lapidary/trace.cuh")),
];

/// The headers that `source` includes, and those that they include, sorted by name.
pub fn closure(source: &str) -> Vec<(&'static str, &'static str)> {
    let mut found = std::collections::BTreeMap::new();
    let mut open = vec![source];
    while let Some(text) = open.pop() {
        for name in included(text) {
            let header = HEADERS.iter().find(|(header, _)| *header == name);
            if let Some(&(name, text)) = header
                && found.insert(name, text).is_none()
            {
                open.push(text);
            }
        }
    }
    found.into_iter().collect()
}

fn included(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.trim().strip_prefix("#include \"")?.split('"').next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn on_disk(root: &Path, below: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(root.join(below)).unwrap() {
            let name = below.join(entry.unwrap().file_name());
            if root.join(&name).is_dir() {
                on_disk(root, &name, found);
            } else if name.extension().is_some_and(|extension| extension == "cuh") {
                found.push(name.to_string_lossy().into_owned());
            }
        }
    }

    #[test]
    fn every_header_on_disk_is_listed() {
        let root = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).to_owned();
        let mut expected = Vec::new();
        on_disk(&root.join("cuda"), Path::new(""), &mut expected);
        on_disk(&root, Path::new("families"), &mut expected);
        expected.sort();
        let mut listed: Vec<&str> = HEADERS.iter().map(|(name, _)| *name).collect();
        listed.sort();
        assert_eq!(listed, expected);
    }

    #[test]
    fn every_include_is_a_header() {
        for (name, text) in HEADERS {
            for include in included(text) {
                assert!(HEADERS.iter().any(|(header, _)| *header == include), "{name} includes {include}");
            }
        }
    }
}
