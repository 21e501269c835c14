//! This crate's own files, for compilers that copy the runtime into the crates they emit.

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../", $path)))),*]
    };
}

/// Every file of this crate but its manifest: the path below the crate's folder, and the text.
pub const FILES: &[(&str, &str)] = files![
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "src/cpu/attention.rs",
    "src/cpu/blocks.rs",
    "src/cpu/bytes.rs",
    "src/cpu/check.rs",
    "src/cpu/conv.rs",
    "src/cpu/dispatch.rs",
    "src/cpu/element.rs",
    "src/cpu/engine.rs",
    "src/cpu/exec.rs",
    "src/cpu/gather.rs",
    "src/cpu/matmul.rs",
    "src/cpu/memory.rs",
    "src/cpu/mod.rs",
    "src/cpu/movement.rs",
    "src/cpu/norm.rs",
    "src/cpu/packed.rs",
    "src/cpu/pointwise/exec.rs",
    "src/cpu/pointwise/layout.rs",
    "src/cpu/pointwise/math.rs",
    "src/cpu/pointwise/mod.rs",
    "src/cpu/pointwise/program.rs",
    "src/cpu/pointwise/storage.rs",
    "src/cpu/pointwise/tests.rs",
    "src/cpu/pool.rs",
    "src/cpu/product.rs",
    "src/cpu/recurrent.rs",
    "src/cpu/reduce.rs",
    "src/cpu/region.rs",
    "src/cpu/repeat.rs",
    "src/cpu/resize.rs",
    "src/cpu/scan.rs",
    "src/cpu/scatter.rs",
    "src/cpu/sheet.rs",
    "src/cpu/simd.rs",
    "src/cpu/softmax.rs",
    "src/cpu/suppress.rs",
    "src/cpu/team.rs",
    "src/cpu/testing.rs",
    "src/cpu/tests.rs",
    "src/cpu/threads.rs",
    "src/cpu/window.rs",
    "src/cuda/device.rs",
    "src/cuda/driver.rs",
    "src/cuda/engine.rs",
    "src/cuda/error.rs",
    "src/cuda/exec.rs",
    "src/cuda/fake.rs",
    "src/cuda/ffi.rs",
    "src/cuda/graph.rs",
    "src/cuda/launch.rs",
    "src/cuda/library.rs",
    "src/cuda/memory.rs",
    "src/cuda/mod.rs",
    "src/cuda/module.rs",
    "src/cuda/pending.rs",
    "src/cuda/record.rs",
    "src/cuda/stream.rs",
    "src/cuda/tests.rs",
    "src/dtype.rs",
    "src/error.rs",
    "src/lib.rs",
    "src/literal.rs",
    "src/model.rs",
    "src/op.rs",
    "src/shapes.rs",
    "src/sources.rs",
    "src/table.rs",
    "src/view.rs",
    "src/weights.rs",
];

#[cfg(test)]
mod tests {
    use super::FILES;
    use std::path::Path;

    fn on_disk(root: &Path, below: &str, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(root.join(below)).unwrap() {
            let name = format!("{below}/{}", entry.unwrap().file_name().to_string_lossy());
            if root.join(&name).is_dir() {
                on_disk(root, &name, found);
            } else {
                found.push(name);
            }
        }
    }

    #[test]
    fn every_file_is_listed() {
        let root = std::env::var("CARGO_MANIFEST_DIR").unwrap();
        let mut expected = vec!["LICENSE-APACHE".to_owned(), "LICENSE-MIT".to_owned()];
        on_disk(Path::new(&root), "src", &mut expected);
        expected.sort();
        let listed: Vec<&str> = FILES.iter().map(|(path, _)| *path).collect();
        assert_eq!(listed, expected);
    }
}
