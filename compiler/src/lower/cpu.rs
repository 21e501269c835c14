//! A problem as an operation of the `cpu` target. The runtime's own check says whether there is a function for it.

use bumpalo::Bump;
use lapidary_runtime::cpu::{Operand, supports};
use lapidary_runtime::table::{CpuOp, Dim, Program as TableProgram};
use lapidary_templates::{Expr, Kind, Problem, Program as Pointwise};

/// Whether the `cpu` target has a function for a problem.
///
/// # Errors
/// Why not, in words.
pub fn check(problem: &Problem) -> Result<(), String> {
    let operand = |ty: &Option<lapidary_templates::Operand>| {
        ty.as_ref().map(|ty| Operand { dtype: ty.dtype, rank: ty.dims.len() })
    };
    let [inputs, outputs] =
        [&problem.inputs, &problem.outputs].map(|list| list.iter().map(operand).collect::<Vec<_>>());
    // Extents do not matter: what depends on them is checked when they are known.
    let bump = Bump::new();
    supports(&cpu_op(&problem.kind, &mut |_| Dim::Const(0), &bump), &inputs, &outputs)
}

/// The operation for a kind of problem, in `bump`; `dim` gives an extent its place in the tables.
pub fn cpu_op<'b>(kind: &Kind, dim: &mut dyn FnMut(&Expr) -> Dim, bump: &'b Bump) -> CpuOp<'b> {
    let mut dims = |extents: &[Expr]| -> &'b [Dim] {
        let dims: Vec<Dim> = extents.iter().map(&mut *dim).collect();
        bump.alloc_slice_copy(&dims)
    };
    match kind {
        Kind::Pointwise(program) => CpuOp::Pointwise(pointwise(program, bump)),
        Kind::MatMul(spec, epilogue) => {
            CpuOp::MatMul { spec: *spec, epilogue: epilogue.as_ref().map(|program| pointwise(program, bump)) }
        }
        Kind::Conv(spec, epilogue) => {
            CpuOp::Conv { spec: *spec, epilogue: epilogue.as_ref().map(|program| pointwise(program, bump)) }
        }
        Kind::ConvTranspose(spec) => CpuOp::ConvTranspose(*spec),
        Kind::Pool(spec) => CpuOp::Pool(*spec),
        Kind::Reduce(spec) => CpuOp::Reduce(*spec),
        Kind::ArgReduce(spec) => CpuOp::ArgReduce(*spec),
        Kind::Softmax(spec) => CpuOp::Softmax(*spec),
        Kind::Attention(spec, _) => CpuOp::Attention(*spec),
        Kind::Norm(spec, epilogue) => {
            CpuOp::Norm { spec: *spec, epilogue: epilogue.as_ref().map(|program| pointwise(program, bump)) }
        }
        Kind::GroupNorm(spec, epilogue) => {
            CpuOp::GroupNorm { spec: *spec, epilogue: epilogue.as_ref().map(|program| pointwise(program, bump)) }
        }
        Kind::Transpose(spec) => CpuOp::Transpose(*spec),
        Kind::Expand => CpuOp::Expand,
        Kind::Slice { starts, steps } => CpuOp::Slice { starts: dims(starts), steps: bump.alloc_slice_copy(steps) },
        Kind::Concat { axis } => CpuOp::Concat { axis: *axis },
        Kind::Pad { mode, lo } => CpuOp::Pad { mode: *mode, lo: dims(lo) },
        Kind::Gather { axis } => CpuOp::Gather { axis: *axis },
        Kind::GatherElements { axis } => CpuOp::GatherElements { axis: *axis },
        Kind::GatherNd { batch_dims } => CpuOp::GatherNd { batch_dims: *batch_dims },
        Kind::ScatterElements { axis, mode } => CpuOp::ScatterElements { axis: *axis, mode: *mode },
        Kind::ScatterNd { mode } => CpuOp::ScatterNd { mode: *mode },
        Kind::Resize(spec) => CpuOp::Resize(*spec),
        Kind::RegionPool(spec) => CpuOp::RegionPool(*spec),
        Kind::Recurrent(spec) => CpuOp::Recurrent(*spec),
        Kind::Suppress => CpuOp::Suppress,
        Kind::CumSum { axis, exclusive, reverse } => {
            CpuOp::CumSum { axis: *axis, exclusive: *exclusive, reverse: *reverse }
        }
        Kind::TopK { axis, largest } => CpuOp::TopK { axis: *axis, largest: *largest },
        Kind::Range => CpuOp::Range,
        Kind::Extents(values) => CpuOp::Extents(dims(values)),
        Kind::Copy => CpuOp::Copy,
        Kind::Pair(_) => crate::bug!("a pair on the target cpu, where each operation has its function"),
    }
}

fn pointwise<'b>(program: &Pointwise, bump: &'b Bump) -> TableProgram<'b> {
    TableProgram {
        inputs: bump.alloc_slice_copy(&program.inputs),
        steps: bump.alloc_slice_copy(&program.steps),
        outputs: bump.alloc_slice_copy(&program.outputs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapidary_runtime::DType;
    use lapidary_runtime::op::{Pool, PoolKind, Window};
    use lapidary_templates::Operand as Type;

    #[test]
    fn what_the_runtime_refuses_is_refused_before() {
        let window =
            Window { rank: 1, size: [2, 1, 1], stride: [1; 3], dilation: [1; 3], pad_lo: [0; 3], pad_hi: [0; 3] };
        let pool = |dtype| Problem {
            kind: Kind::Pool(Pool { kind: PoolKind::Max, window, index_order: 0 }),
            inputs: vec![Some(Type { dtype, dims: [1, 1, 4].map(Expr::constant).to_vec() })],
            outputs: vec![Some(Type { dtype, dims: [1, 1, 3].map(Expr::constant).to_vec() })],
        };
        assert_eq!(check(&pool(DType::F32)), Ok(()));
        assert_eq!(check(&pool(DType::I32)), Err("no pooling of i32".to_owned()));
    }
}
