//! Results are the same bits whatever the number of threads: steps that cut their work into parts, large enough for
//! several. Products and convolutions have tests of their own.

use crate::cpu::memory::{Raw, Scratch};
use crate::cpu::pointwise::{self, compile};
use crate::cpu::team::Team;
use crate::cpu::testing::{Random, tensor, tensor_mut};
use crate::cpu::{movement, pool, softmax};
use crate::dtype::DType;
use crate::op::{Arg, Instr, MAX_RANK, Pool, PoolKind, ScalarOp, Softmax, Transpose, Window};
use crate::table::Program;

/// Calls `run` with one, two, three and seven threads.
fn same_bits(what: &str, run: impl Fn(&mut Scratch) -> Vec<f32>) {
    let with = |threads: usize| {
        let mut scratch = Scratch { team: Team::new(threads), ..Scratch::default() };
        run(&mut scratch).into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let alone = with(1);
    assert!(alone.iter().any(|bits| *bits != alone[0]), "{what}: nothing was computed");
    for threads in [2, 3, 7] {
        assert!(with(threads) == alone, "{what}: {threads} threads");
    }
}

#[test]
fn of_windows() {
    let x = Random::new(1).floats(60 * 61 * 67);
    let window =
        Window { rank: 2, size: [3, 3, 1], stride: [2, 2, 1], dilation: [1; 3], pad_lo: [1, 1, 0], pad_hi: [1, 1, 0] };
    for kind in [PoolKind::Max, PoolKind::Average, PoolKind::AverageCountPad, PoolKind::Lp(2)] {
        same_bits(&format!("{kind:?}"), |scratch| {
            let mut out = vec![0f32; 60 * 31 * 34];
            let spec = Pool { kind, window, index_order: 0 };
            let to = &mut tensor_mut(&mut out, &[2, 30, 31, 34]);
            pool::run(&spec, &tensor(&x, &[2, 30, 61, 67]), to, None, scratch);
            out
        });
    }
}

#[test]
fn of_softmax() {
    let x = Random::new(2).floats(300 * 410);
    for (axis, dims) in [(1, [300, 410, 1]), (1, [3, 100, 410]), (0, [300, 410, 1])] {
        same_bits(&format!("softmax along axis {axis} of {dims:?}"), |scratch| {
            let mut out = vec![0f32; x.len()];
            softmax::run(&Softmax { axis, log: false }, &tensor(&x, &dims), &mut tensor_mut(&mut out, &dims), scratch);
            out
        });
    }
}

#[test]
fn of_transposes() {
    let x = Random::new(3).floats(130 * 60 * 70);
    for perm in [[1, 0, 2], [0, 2, 1], [2, 1, 0]] {
        let mut spec = Transpose { rank: 3, perm: [0; MAX_RANK] };
        spec.perm[..3].copy_from_slice(&perm);
        let dims = [130, 60, 70];
        let to = perm.map(|axis| dims[usize::from(axis)]);
        same_bits(&format!("transpose {perm:?}"), |scratch| {
            let mut out = vec![0f32; x.len()];
            movement::transpose(&spec, &tensor(&x, &dims), &mut tensor_mut(&mut out, &to), &mut scratch.team);
            out
        });
    }
}

#[test]
fn of_programs() {
    const F: DType = DType::F32;
    let steps = [
        Instr::binary(ScalarOp::Add, F, Arg::Input(0), Arg::Input(1)),
        Instr::unary(ScalarOp::Tanh, F, Arg::Step(0)),
        Instr::binary(ScalarOp::Mul, F, Arg::Step(1), Arg::Input(2)),
    ];
    let program = Program { inputs: &[F; 3], steps: &steps, outputs: &[Arg::Step(2)] };
    let compiled = compile(&program, &[F]).unwrap();
    let mut random = Random::new(4);
    // Whole, one a row that repeats within a chunk, one a channel.
    let (x, row, channel) = (random.floats(3 * 70 * 999), random.floats(999), random.floats(70));
    same_bits("a program", |scratch| {
        let mut out = vec![0f32; x.len()];
        let operands = [tensor(&x, &[3, 70, 999]), tensor(&row, &[999]), tensor(&channel, &[70, 1])];
        let to = tensor_mut(&mut out, &[3, 70, 999]);
        let result = Raw { dtype: F, dims: to.dims, start: to.bytes.as_mut_ptr(), bytes: to.bytes.len() };
        // SAFETY: distinct slices.
        unsafe { pointwise::run(&compiled, &mut scratch.team, &operands.each_ref().map(Raw::of), &[result]) };
        out
    });
}
