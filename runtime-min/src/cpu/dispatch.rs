//! Running the steps of a segment: from each operation to its function.

use crate::cpu::check::Prepared;
use crate::cpu::gather::OutOfRange;
use crate::cpu::matmul::Room;
use crate::cpu::memory::{Buffer, Inputs, Memory, Outputs, Raw, Scratch, Tensor, TensorMut};
use crate::cpu::pointwise::Epilogue;
use crate::cpu::scan::{End, Running};
use crate::cpu::team::Team;
use crate::cpu::{
    attention, conv, gather, matmul, movement, norm, packed, pointwise, pool, recurrent, reduce, region, repeat,
    resize, scan, scatter, softmax, suppress,
};
use crate::dtype::DType;
use crate::error::Error;
use crate::table::{Action, CpuOp, NONE, PlanTables, Step};
use crate::view::OutputRef;

/// Shows a result of a step that has run.
pub type Observe<'o> = &'o mut dyn FnMut(&str, u32, OutputRef<'_>);

/// Runs segment `segment`, and those that its steps name.
pub fn run_steps(
    tables: &PlanTables<'_>,
    prepared: &[Vec<Prepared>],
    segment: usize,
    memory: &mut Memory<'_>,
    scratch: &mut Scratch,
    observe: Observe<'_>,
) -> Result<(), Error> {
    let (Some(steps), Some(prepared_steps)) = (tables.segments.get(segment), prepared.get(segment)) else {
        return Ok(());
    };
    for (step, ready) in steps.steps.iter().zip(prepared_steps) {
        match &step.action {
            Action::Cpu(op) => {
                let t = std::time::Instant::now();
                run_op(op, step, ready, memory, scratch)?;
                if std::env::var_os("H5").is_some() {
                    let d = memory.read(step.outputs[0]).dims;
                    eprintln!(
                        "H5 {:.1} {} {:?}",
                        t.elapsed().as_secs_f64() * 1e6,
                        format!("{op:?}").split([' ', '(']).next().unwrap(),
                        (step.label, &d[..])
                    );
                }
            }
            Action::If { then_segment, else_segment, .. } => {
                let condition = memory.read(step.inputs[0]).bytes[0] != 0;
                let branch = if condition { *then_segment } else { *else_segment };
                memory.shapes().check_constraints(branch as usize)?;
                run_steps(tables, prepared, branch as usize, memory, scratch, observe)?;
            }
            Action::Count { symbol } => {
                let bytes = memory.read(step.inputs[0]).bytes;
                let count = bytes.first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes));
                memory.shapes().set_count(*symbol, count)?;
            }
            Action::Loop { body, most, .. } => {
                let rounds = repeat::limit(step, *most, memory);
                let mut round = 0;
                while round < rounds && repeat::goes_on(step, memory) {
                    if round == 0 {
                        memory.shapes().check_constraints(*body as usize)?;
                    }
                    run_steps(tables, prepared, *body as usize, memory, scratch, observe)?;
                    repeat::collect(step, round, memory);
                    round += 1;
                }
            }
            Action::Launch(_) => unreachable!("the check at load lets no launch through"),
        }
        for &output in step.outputs.iter().filter(|&&output| output != NONE) {
            let tensor = memory.read(output);
            let (dtype, extents, bytes) = (tensor.dtype, tensor.dims, tensor.bytes);
            observe(step.label, output, OutputRef { name: step.label, dtype, extents, bytes });
        }
    }
    Ok(())
}

fn run_op(
    op: &CpuOp<'_>,
    step: &Step<'_>,
    ready: &Prepared,
    memory: &mut Memory<'_>,
    scratch: &mut Scratch,
) -> Result<(), Error> {
    if let CpuOp::Pointwise(_) = op {
        run_pointwise(step, ready, memory, scratch);
        return Ok(());
    }
    let (inputs, outputs) = memory.open(step);
    run_function(op, ready, inputs, outputs, scratch).map_err(|OutOfRange { index, extent }| Error::Index {
        step: step.label.to_owned(),
        index,
        extent,
    })
}

fn run_pointwise(step: &Step<'_>, ready: &Prepared, memory: &mut Memory<'_>, scratch: &mut Scratch) {
    let Some(program) = &ready.program else { unreachable!("{}: no program was prepared", step.label) };
    let raw = |&index: &u32| memory.raw(index);
    let outputs = step.outputs.iter().map(raw);
    for (k, result) in outputs.clone().enumerate() {
        assert!(outputs.clone().take(k).all(|other| !other.overlaps(&result)), "{}: two results overlap", step.label);
        // In place means element by element: the same bytes, of one type and shape.
        let in_place = |operand: Raw| {
            let same = (operand.start, operand.bytes, operand.dtype.bits())
                == (result.start, result.bytes, result.dtype.bits());
            !operand.overlaps(&result) || same
        };
        assert!(step.inputs.iter().map(raw).all(in_place), "{}: a result overlaps an operand partly", step.label);
        memory.check_writable(step.outputs[k]);
    }
    let Scratch { raws, team, .. } = scratch;
    raws.clear();
    raws.extend(step.inputs.iter().chain(step.outputs).map(raw));
    let (inputs, outputs) = raws.split_at(step.inputs.len());
    // SAFETY: the tensors lie inside of their regions (`raw`), the rest was just checked.
    unsafe { pointwise::run(program, team, inputs, outputs) };
}

/// The elements that a thread finishes at a time.
const PIECE: usize = 1 << 14;

/// Applies an epilogue of one input to a result of floats in place; it reads `none` of the operands.
fn finish(ready: &Prepared, out: &mut TensorMut<'_>, none: Inputs<'_>, scratch: &mut Scratch) {
    if ready.program.is_some() {
        let Scratch { raws, team, .. } = scratch;
        let epilogue = Epilogue::new(ready.program.as_ref(), out.dtype, out.dims, none, raws);
        team.pieces(out.bytes, out.dtype.bytes(PIECE), |part, out, lane| {
            epilogue.bind(&mut lane.registers).in_place(out, part * PIECE);
        });
    }
}

fn run_function(
    op: &CpuOp<'_>,
    ready: &Prepared,
    inputs: Inputs<'_>,
    mut outputs: Outputs<'_>,
    scratch: &mut Scratch,
) -> Result<(), OutOfRange> {
    match op {
        CpuOp::Pointwise(_) => unreachable!("pointwise steps run on raw tensors"),
        CpuOp::MatMul { spec, .. } => {
            let out = outputs.first();
            let Scratch { a, b, c, raws, team, .. } = scratch;
            let epilogue = Epilogue::new(ready.program.as_ref(), out.dtype, out.dims, inputs.from(2), raws);
            matmul::run(spec, &inputs.need(0), &inputs.need(1), out, &epilogue, Room { a, b, c, team });
        }
        CpuOp::Conv { spec, .. } => {
            let out = outputs.first();
            let Scratch { a, b, c, raws, team, .. } = scratch;
            let epilogue = Epilogue::new(ready.program.as_ref(), out.dtype, out.dims, inputs.from(2), raws);
            conv::run(spec, &inputs.need(0), &inputs.need(1), out, &epilogue, Room { a, b, c, team });
        }
        CpuOp::ConvTranspose(spec) => {
            let Scratch { a, b, c, team, .. } = scratch;
            conv::run_transposed(spec, &inputs.need(0), &inputs.need(1), outputs.first(), Room { a, b, c, team });
        }
        CpuOp::Pool(spec) => {
            let [out, indices, _] = outputs.all();
            let Some(out) = out else { unreachable!("the check at load has seen this result") };
            pool::run(spec, &inputs.need(0), out, indices.as_mut(), scratch);
        }
        CpuOp::Reduce(spec) => reduce::run(spec, &inputs.need(0), outputs.first(), &mut scratch.a),
        CpuOp::ArgReduce(spec) => reduce::run_arg(spec, &inputs.need(0), outputs.first(), &mut scratch.a),
        CpuOp::Attention(spec) => {
            let [q, k, v] = [0, 1, 2].map(|k| inputs.need(k));
            attention::run(spec, [&q, &k, &v], inputs.get(3).as_ref(), outputs.first(), scratch);
        }
        CpuOp::Softmax(spec) => softmax::run(spec, &inputs.need(0), outputs.first(), scratch),
        CpuOp::Norm { spec, .. } => {
            norm::run(spec, &inputs.need(0), inputs.get(1), inputs.get(2), outputs.all(), scratch);
            finish(ready, outputs.first(), inputs.from(3), scratch);
        }
        CpuOp::GroupNorm { spec, .. } => {
            norm::run_groups(spec, &inputs.need(0), &inputs.need(1), &inputs.need(2), outputs.first());
            finish(ready, outputs.first(), inputs.from(3), scratch);
        }
        CpuOp::Resize(spec) => {
            resize::run(spec, &inputs.need(0), inputs.get(1).as_ref(), outputs.first(), scratch);
        }
        CpuOp::RegionPool(spec) => return region::run(spec, &inputs, outputs.first(), scratch),
        CpuOp::Recurrent(spec) => recurrent::run(spec, inputs, outputs.all(), scratch),
        CpuOp::Suppress => return suppress::run(&inputs, outputs.first()),
        &CpuOp::CumSum { axis, exclusive, reverse } => {
            let spec = Running { axis: usize::from(axis), exclusive, reverse };
            scan::cumulative_sum(spec, &inputs.need(0), outputs.first(), &mut scratch.a);
        }
        &CpuOp::TopK { axis, largest } => {
            let end = if largest { End::Largest } else { End::Smallest };
            scan::top_k(usize::from(axis), end, &inputs.need(0), outputs.all(), &mut scratch.a);
        }
        CpuOp::Range => scan::range(&inputs.need(0), &inputs.need(1), outputs.first()),
        CpuOp::Extents(dims) => scan::extents(dims.iter().map(|dim| inputs.dim(*dim)), outputs.first()),
        CpuOp::Copy => outputs.first().bytes.copy_from_slice(inputs.need(0).bytes),
        CpuOp::Concat { axis } => movement::concat(usize::from(*axis), inputs, outputs.first()),
        CpuOp::Transpose(_)
        | CpuOp::Expand
        | CpuOp::Slice { .. }
        | CpuOp::Pad { .. }
        | CpuOp::Gather { .. }
        | CpuOp::GatherElements { .. }
        | CpuOp::GatherNd { .. }
        | CpuOp::ScatterElements { .. }
        | CpuOp::ScatterNd { .. } => return moved(op, inputs, outputs.first(), scratch),
    }
    Ok(())
}

/// Movement of elements smaller than a byte goes by way of bytes.
fn moved(op: &CpuOp<'_>, inputs: Inputs<'_>, out: &mut TensorMut<'_>, scratch: &mut Scratch) -> Result<(), OutOfRange> {
    let operands: [Option<Tensor<'_>>; 3] = core::array::from_fn(|k| inputs.get(k));
    if out.dtype.bits() >= 8 {
        return move_bytes(op, operands, inputs, out, &mut scratch.index, &mut scratch.team);
    }
    let packed::Unpacked { operands: buffers, result } = &mut scratch.unpacked;
    let mut whole = operands;
    for ((whole, operand), buffer) in whole.iter_mut().zip(&operands).zip(buffers) {
        if let Some(operand) = operand {
            *whole = Some(packed::unpack(operand, buffer));
        }
    }
    let bytes = result.take::<u8>(out.dims.count());
    let mut unpacked = TensorMut { dtype: DType::U8, dims: out.dims, bytes };
    move_bytes(op, whole, inputs, &mut unpacked, &mut scratch.index, &mut scratch.team)?;
    packed::pack(unpacked.bytes, out);
    Ok(())
}

fn move_bytes(
    op: &CpuOp<'_>,
    [first, second, third]: [Option<Tensor<'_>>; 3],
    inputs: Inputs<'_>,
    out: &mut TensorMut<'_>,
    index: &mut Buffer,
    team: &mut Team,
) -> Result<(), OutOfRange> {
    let missing = || unreachable!("the check at load has seen the operands");
    let x = first.unwrap_or_else(missing);
    let picks = || second.unwrap_or_else(missing);
    let scattered = || scatter::Operands { x, indices: picks(), updates: third.unwrap_or_else(missing) };
    match op {
        CpuOp::Transpose(spec) => movement::transpose(spec, &x, out, team),
        CpuOp::Expand => movement::expand(&x, out),
        CpuOp::Slice { starts, steps } => movement::slice(&movement::values(starts, &inputs), steps, &x, out),
        CpuOp::Pad { mode, lo } => {
            movement::pad(*mode, &movement::values(lo, &inputs), &x, second.as_ref(), out, index);
        }
        CpuOp::Gather { axis } => return gather::gather(usize::from(*axis), &x, &picks(), out, index),
        CpuOp::GatherElements { axis } => {
            return gather::gather_elements(usize::from(*axis), &x, &picks(), out, index);
        }
        CpuOp::GatherNd { batch_dims } => {
            return gather::gather_nd(usize::from(*batch_dims), &x, &picks(), out, index);
        }
        CpuOp::ScatterElements { axis, mode } => {
            return scatter::scatter_elements(usize::from(*axis), *mode, &scattered(), out, index);
        }
        CpuOp::ScatterNd { mode } => return scatter::scatter_nd(*mode, &scattered(), out, index),
        CpuOp::Pointwise(_)
        | CpuOp::MatMul { .. }
        | CpuOp::Conv { .. }
        | CpuOp::ConvTranspose(_)
        | CpuOp::Pool(_)
        | CpuOp::Reduce(_)
        | CpuOp::ArgReduce(_)
        | CpuOp::Softmax(_)
        | CpuOp::Attention(_)
        | CpuOp::Norm { .. }
        | CpuOp::GroupNorm { .. }
        | CpuOp::Concat { .. }
        | CpuOp::Resize(_)
        | CpuOp::RegionPool(_)
        | CpuOp::Recurrent(_)
        | CpuOp::Suppress
        | CpuOp::CumSum { .. }
        | CpuOp::TopK { .. }
        | CpuOp::Range
        | CpuOp::Extents(_)
        | CpuOp::Copy => unreachable!("{op:?} computes"),
    }
    Ok(())
}
