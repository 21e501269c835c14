//! Bytes to a model, a graph and plans. Half of the mutations are libFuzzer's on bytes, half keep the model readable.
//!
//! `LAPIDARY_FUZZ_SEEDS=DIR` writes the models to start from into DIR before fuzzing begins.

#![no_main]

use lapidary_fuzz::{mutate, property, seeds};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(
    init: {
        if let Some(folder) = std::env::var_os("LAPIDARY_FUZZ_SEEDS") {
            seeds::write(folder.as_ref()).expect("seeds are written");
        }
    },
    |data: &[u8]| {
        property::check(data);
    }
);

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed % 2 == 0
        && let Some(mutated) = mutate::mutate(&data[..size], seed)
        && mutated.len() <= max_size
    {
        data[..mutated.len()].copy_from_slice(&mutated);
        return mutated.len();
    }
    fuzzer_mutate(data, size, max_size)
});
