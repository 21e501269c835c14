//! Runs the model on made-up inputs; prints the outputs' shapes and the time of a run.
//!
//! `cargo run --release --example run`

use std::time::Instant;

use digits::{Batch, C, Digits, Error, Inputs, Shape, View};

const RUNS: usize = 20;

fn main() -> Result<(), Error> {
    let model = Digits::builder().build()?;
    let mut session = model.session()?;
    let batch = Batch::new(1)?;
    let mut noise = noise();
    let image: Vec<f32> = (0..64 * batch.get()).map(|_| noise()).collect();
    let inputs = Inputs {
        image: View::new(&image, (batch, C, C, C))?,
    };
    let outputs = session.run(&inputs)?;
    let shape = outputs.logits.shape().extents();
    println!("logits {:?}", &*shape);

    let mut times = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        session.run(&inputs)?;
        times.push(start.elapsed());
    }
    times.sort();
    println!("{:.3?} a run (median of {RUNS})", times[RUNS / 2]);
    Ok(())
}

/// Numbers between 0 and 1, the same in each program: xorshift64* (S. Vigna, "An experimental exploration of
/// Marsaglia's xorshift generators, scrambled").
fn noise() -> impl FnMut() -> f32 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1 << 24) as f32
    }
}
