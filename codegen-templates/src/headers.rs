//! The CUDA headers that kernels include, as text: what NVRTC gets in memory, and what an emitted crate carries.

/// Every header: the name that `#include` spells, and its text.
pub const HEADERS: &[(&str, &str)] = &[
    ("lapidary/prelude.cuh", include_str!("../cuda/lapidary/prelude.cuh")),
    ("lapidary/cp_async.cuh", include_str!("../cuda/lapidary/cp_async.cuh")),
    ("lapidary/epilogue.cuh", include_str!("../cuda/lapidary/epilogue.cuh")),
    ("lapidary/join.cuh", include_str!("../cuda/lapidary/join.cuh")),
    ("lapidary/math.cuh", include_str!("../cuda/lapidary/math.cuh")),
    ("lapidary/storage.cuh", include_str!("../cuda/lapidary/storage.cuh")),
    ("lapidary/mma.cuh", include_str!("../cuda/lapidary/mma.cuh")),
    ("lapidary/mma_tile.cuh", include_str!("../cuda/lapidary/mma_tile.cuh")),
    ("lapidary/simt_tile.cuh", include_str!("../cuda/lapidary/simt_tile.cuh")),
    ("lapidary/source.cuh", include_str!("../cuda/lapidary/source.cuh")),
    ("families/squeeze/kernel.cuh", include_str!("../families/squeeze/kernel.cuh")),
    ("families/gemm/kernel.cuh", include_str!("../families/gemm/kernel.cuh")),
    ("families/conv/kernel.cuh", include_str!("../families/conv/kernel.cuh")),
    ("families/depthwise/kernel.cuh", include_str!("../families/depthwise/kernel.cuh")),
    ("lapidary/team.cuh", include_str!("../cuda/lapidary/team.cuh")),
    ("lapidary/wide.cuh", include_str!("../cuda/lapidary/wide.cuh")),
    ("families/control/kernel.cuh", include_str!("../families/control/kernel.cuh")),
    ("families/copy/kernel.cuh", include_str!("../families/copy/kernel.cuh")),
    ("families/pointwise/kernel.cuh", include_str!("../families/pointwise/kernel.cuh")),
    ("families/reduce/kernel.cuh", include_str!("../families/reduce/kernel.cuh")),
    ("families/softmax/kernel.cuh", include_str!("../families/softmax/kernel.cuh")),
    ("families/attention/kernel.cuh", include_str!("../families/attention/kernel.cuh")),
    ("families/norm/kernel.cuh", include_str!("../families/norm/kernel.cuh")),
    ("families/pool/kernel.cuh", include_str!("../families/pool/kernel.cuh")),
    ("families/region/kernel.cuh", include_str!("../families/region/kernel.cuh")),
    ("families/resize/kernel.cuh", include_str!("../families/resize/kernel.cuh")),
    ("families/gather/kernel.cuh", include_str!("../families/gather/kernel.cuh")),
    ("families/scatter/kernel.cuh", include_str!("../families/scatter/kernel.cuh")),
    ("families/fill/kernel.cuh", include_str!("../families/fill/kernel.cuh")),
    ("families/recurrent/kernel.cuh", include_str!("../families/recurrent/kernel.cuh")),
    ("families/scan/kernel.cuh", include_str!("../families/scan/kernel.cuh")),
    ("families/suppress/kernel.cuh", include_str!("../families/suppress/kernel.cuh")),
    ("families/topk/kernel.cuh", include_str!("../families/topk/kernel.cuh")),
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
