use lapidary_runtime::op::*;

use super::*;
use crate::ir::{Graph, Program, Region};

fn ty(text: &str) -> Type {
    let (dtype, dims) = text.split_once('[').unwrap();
    let dims = dims.trim_end_matches(']');
    let dims = if dims.is_empty() { Vec::new() } else { dims.split(';').map(|dim| dim.parse().unwrap()).collect() };
    Type { dtype: DType::from_name(dtype).unwrap(), dims }
}

fn exprs(texts: &[&str]) -> Vec<Expr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// The results as `f32[a;3], i64[a;3] | a = b`: types, then constraints. Symbols lie in 1..=64, `big` in 2..=64.
fn show(op: &Op, operands: &[&str]) -> Result<String, String> {
    let types: Vec<Option<Type>> = operands.iter().map(|text| (*text != "_").then(|| ty(text))).collect();
    let types: Vec<Option<&Type>> = types.iter().map(Option::as_ref).collect();
    let range = |expr: &Expr| expr.range(&|name| if name.starts_with("big") { (2, 64) } else { (1, 64) });
    let mut cx = Inference { range: &range, constraints: Vec::new() };
    let results = infer(op, &types, &mut cx)?;
    let one = |ty: &Type| {
        let dims: Vec<String> = ty.dims.iter().map(Expr::to_string).collect();
        format!("{}[{}]", ty.dtype, dims.join(";"))
    };
    let mut text = results.iter().map(one).collect::<Vec<_>>().join(", ");
    for (k, (kind, a, b)) in cx.constraints.iter().enumerate() {
        let sign = if *kind == ConstraintKind::Equal { "=" } else { "~" };
        text += &format!("{}{a} {sign} {b}", if k == 0 { " | " } else { ", " });
    }
    Ok(text)
}

fn check(op: &Op, operands: &[&str], expected: &str) {
    assert_eq!(show(op, operands), Ok(expected.to_owned()), "{} {operands:?}", op.name());
}

fn refuse(op: &Op, operands: &[&str], expected: &str) {
    assert_eq!(show(op, operands), Err(expected.to_owned()), "{} {operands:?}", op.name());
}

fn add() -> Op {
    Op::Pointwise(Program::single(ScalarOp::Add, DType::F32, &[DType::F32; 2]))
}

fn window(size: u32, stride: u32, pad: u32) -> Window {
    Window {
        rank: 2,
        size: [size, size, 1],
        stride: [stride, stride, 1],
        dilation: [1; 3],
        pad_lo: [pad, pad, 0],
        pad_hi: [pad, pad, 0],
    }
}

fn conv(size: u32, stride: u32, pad: u32, groups: u32) -> Op {
    Op::Conv(Conv { window: window(size, stride, pad), groups, math: Math::Exact }, None)
}

#[test]
fn pointwise_broadcasts() {
    check(&add(), &["f32[4;1;3]", "f32[5;3]"], "f32[4;5;3]");
    check(&add(), &["f32[b;3]", "f32[]"], "f32[b;3]");
    check(&add(), &["f32[a]", "f32[b]"], "f32[bcast(a, b)] | a ~ b");
    check(&add(), &["f32[big]", "f32[b]"], "f32[big] | big ~ b");
    check(&add(), &["f32[bigger]", "f32[big]"], "f32[bigger] | bigger = big");
    check(&add(), &["f32[bcast(a, b)]", "f32[a]"], "f32[bcast(a, b)] | bcast(a, b) ~ a");
    check(&add(), &["f32[bcast(a, c)]", "f32[bcast(a, b)]"], "f32[bcast(c, bcast(a, b))] | bcast(a, c) ~ bcast(a, b)");
    check(&add(), &["f32[a]", "f32[7]"], "f32[7] | a ~ 7");
    check(&add(), &["f32[a]", "f32[100]"], "f32[100] | a = 1");
    refuse(&add(), &["f32[4]", "f32[3]"], "operand 1: the extents 4 and 3 do not broadcast");
    refuse(&add(), &["f32[big]", "f32[65]"], "operand 1: the extents big and 65 do not broadcast");
    refuse(&add(), &["f32[4]", "f16[4]"], "input 1 of the program is f32, and its operand f16");
    refuse(&add(), &["f32[4]"], "the program reads 2 operands, and there are 1");
    refuse(&add(), &["f32[4]", "_"], "input 1 of the program is missing");
    refuse(&add(), &["f32[1;1;1;1;1;1;1;1;1]", "f32[]"], "the result has rank 9, and the largest is 8");
}

#[test]
fn programs_are_typed() {
    let step = |op, dtype, inputs: &[DType]| {
        let program = Program::single(op, dtype, inputs);
        program::check(&program)
    };
    assert_eq!(step(ScalarOp::Select, DType::F32, &[DType::Bool, DType::F32, DType::F32]), Ok(()));
    assert_eq!(step(ScalarOp::Pow, DType::F32, &[DType::F32, DType::I64]), Ok(()));
    assert_eq!(step(ScalarOp::Less, DType::Bool, &[DType::I64; 2]), Ok(()));
    assert_eq!(step(ScalarOp::Cast, DType::F32, &[DType::F8E4M3FN]), Ok(()));
    let refused = [
        (ScalarOp::Less, DType::I64, vec![DType::I64; 2], "step 0 (Less): the step is i64, and its result bool"),
        (ScalarOp::Exp, DType::I64, vec![DType::I64], "step 0 (Exp): i64 operands are not defined"),
        (ScalarOp::Not, DType::Bool, vec![DType::I64], "step 0 (Not): i64 operands are not defined"),
        (ScalarOp::BitNot, DType::F32, vec![DType::F32], "step 0 (BitNot): f32 operands are not defined"),
        (ScalarOp::Add, DType::F32, vec![DType::F32, DType::F16], "step 0 (Add): operands are f32 and f16"),
        (ScalarOp::Add, DType::I4, vec![DType::I4; 2], "step 0 (Add): i4 operands are not defined"),
        (
            ScalarOp::Select,
            DType::F32,
            vec![DType::F32, DType::F32, DType::F32],
            "step 0 (Select): operands are f32, f32 and f32",
        ),
    ];
    for (op, dtype, inputs, expected) in refused {
        assert_eq!(step(op, dtype, &inputs), Err(expected.to_owned()));
    }
    let mut program = Program::single(ScalarOp::Exp, DType::F32, &[DType::F32]);
    program.steps[0].args = [Arg::Step(0); 3];
    assert_eq!(program::check(&program), Err("step 0 (Exp): reads step 0, which comes later".to_owned()));
    program.steps[0].args = [Arg::Input(0); 3];
    program.outputs = vec![Arg::Input(3)];
    assert_eq!(program::check(&program), Err("output 0: reads input 3, which is not there".to_owned()));
}

#[test]
fn matmul_multiplies_batches() {
    let plain = MatMul { transpose_a: false, transpose_b: false, math: Math::Exact };
    let matmul = |spec| Op::MatMul(spec, None);
    check(&matmul(plain), &["f32[b;h;s;64]", "f32[b;h;64;t]"], "f32[b;h;s;t]");
    check(&matmul(MatMul { transpose_b: true, ..plain }), &["f32[s;64]", "f32[5;t;64]"], "f32[5;s;t]");
    check(&matmul(plain), &["i8[2;3]", "u8[3;4]"], "i32[2;4]");
    check(&matmul(plain), &["f32[2;k]", "f32[n;4]"], "f32[2;4] | k = n");
    refuse(&matmul(plain), &["f32[2;3]", "f32[4;5]"], "the inner extents of a and b differ: 3 and 4");
    refuse(&matmul(plain), &["f32[3]", "f32[3;5]"], "a has rank 1, and at least 2 is needed");
    refuse(&matmul(plain), &["f32[2;3]", "f16[3;5]"], "the operands are f32 and f16");
    refuse(
        &matmul(plain),
        &["f32[2;2;3]", "f32[4;3;5]"],
        "the batch extents of a and b do not fit: the extents 2 and 4 do not broadcast",
    );
    refuse(
        &matmul(plain),
        &["f32[2;3]", "f32[3;5]", "f32[5]"],
        "there are 1 operands for an epilogue that is not there",
    );
}

#[test]
fn epilogues_keep_the_shape() {
    let plain = MatMul { transpose_a: false, transpose_b: false, math: Math::Exact };
    let fused = |program| Op::MatMul(plain, Some(program));
    let bias = Program::single(ScalarOp::Add, DType::F32, &[DType::F32; 2]);
    check(&fused(bias.clone()), &["f32[s;3]", "f32[3;5]", "f32[5]"], "f32[s;5]");
    check(&fused(bias.clone()), &["f32[s;3]", "f32[3;5]", "f32[s;1]"], "f32[s;5]");
    check(&fused(bias.clone()), &["f32[s;3]", "f32[3;5]", "f32[t;5]"], "f32[s;5] | t ~ s, bcast(s, t) = s");
    let narrow = Program {
        inputs: vec![DType::I32],
        steps: vec![Instr::unary(ScalarOp::Cast, DType::F32, Arg::Input(0))],
        outputs: vec![Arg::Step(0)],
    };
    check(&fused(narrow), &["i8[2;3]", "i8[3;5]"], "f32[2;5]");
    refuse(
        &fused(bias.clone()),
        &["f32[s;3]", "f32[3;1]", "f32[5]"],
        "extent 5 of axis 0 of input 1 of the epilogue does not broadcast to 1",
    );
    refuse(
        &fused(bias.clone()),
        &["f32[2;3]", "f32[3;5]", "f32[1;2;5]"],
        "input 1 of the epilogue has rank 3, which is more than the result's 2",
    );
    refuse(
        &fused(bias),
        &["f16[2;3]", "f16[3;5]", "f32[5]"],
        "input 0 of the epilogue must be f16, the type of the result so far",
    );
}

#[test]
fn convolutions_count_their_windows() {
    check(&conv(7, 2, 3, 1), &["f32[n;3;224;224]", "f32[64;3;7;7]"], "f32[n;64;112;112]");
    check(&conv(3, 2, 1, 4), &["f32[n;8;h;w]", "f32[12;2;3;3]"], "f32[n;12;floor(h + 1, 2);floor(w + 1, 2)]");
    check(&conv(1, 1, 0, 1), &["u8[1;2;5;5]", "i8[3;2;1;1]"], "i32[1;3;5;5]");
    // An axis shorter than the window would have a negative extent.
    check(&conv(3, 1, 0, 1), &["f32[1;2;h;9]", "f32[3;2;3;3]"], "f32[1;3;h - 2;7] | max(0, h - 2) = h - 2");
    refuse(
        &conv(3, 1, 0, 1),
        &["f32[1;2;2;9]", "f32[3;2;3;3]"],
        "the window of 3 does not fit in spatial axis 0 of extent 2 with padding 0 and 0",
    );
    refuse(
        &conv(3, 1, 0, 2),
        &["f32[1;3;9;9]", "f32[4;2;3;3]"],
        "the channels of x and of w times groups differ: 3 and 4",
    );
    refuse(
        &conv(3, 1, 0, 2),
        &["f32[1;4;9;9]", "f32[5;2;3;3]"],
        "the result's channels are 5, which 2 groups do not divide",
    );
    refuse(
        &conv(3, 1, 0, 1),
        &["f32[1;2;9;9]", "f32[3;2;3;1]"],
        "spatial extent 1 of w and the window differ: 1 and 3",
    );
    refuse(
        &conv(0, 1, 0, 1),
        &["f32[1;2;9;9]", "f32[3;2;3;3]"],
        "spatial axis 0 has window 0, stride 1, dilation 1; none may be 0",
    );
    refuse(&conv(3, 1, 0, 0), &["f32[1;2;9;9]", "f32[3;2;3;3]"], "there are 0 groups");
    refuse(&conv(3, 1, 0, 1), &["f32[1;2;9]", "f32[3;2;3;3]"], "x has rank 3, and 4 is needed");
    refuse(
        &conv(3, 1, 0, 1),
        &["i64[1;2;9;9]", "i64[3;2;3;3]"],
        "x is i64, and f64, f32, f16, bf16, i8 or u8 is needed",
    );
}

#[test]
fn transposed_convolutions_state_their_extents() {
    let op = |groups| Op::ConvTranspose(ConvTranspose { window: window(3, 2, 1), groups }, exprs(&["2*h", "10"]));
    check(&op(2), &["f32[n;4;h;5]", "f32[4;3;3;3]"], "f32[n;6;2*h;10]");
    refuse(&op(3), &["f32[n;4;h;5]", "f32[4;3;3;3]"], "the operand's channels are 4, which 3 groups do not divide");
    refuse(&op(1), &["f32[n;4;h;5]", "f32[5;3;3;3]"], "the channels of x and w differ: 4 and 5");
}

#[test]
fn pools_round_down_or_up() {
    let op = |kind, dims: &[&str]| Op::Pool(Pool { kind, window: window(2, 2, 0), index_order: 0 }, exprs(dims));
    check(&op(PoolKind::Max, &["4", "3"]), &["f32[n;3;8;7]"], "f32[n;3;4;3], i64[n;3;4;3]");
    check(&op(PoolKind::Average, &["4", "4"]), &["f32[n;3;8;7]"], "f32[n;3;4;4]");
    refuse(
        &op(PoolKind::Max, &["4", "5"]),
        &["f32[n;3;8;7]"],
        "spatial axis 1 of the result has extent 5, and its windows are 3",
    );
    refuse(&op(PoolKind::Average, &["4", "4"]), &["i32[n;3;8;7]"], "x is i32, and a float type is needed");
    let padded = Op::Pool(Pool { kind: PoolKind::Max, window: window(2, 2, 2), index_order: 0 }, exprs(&["6", "6"]));
    refuse(&padded, &["f32[n;3;8;8]"], "the padding 2, 2 of spatial axis 0 holds a whole window");
}

#[test]
fn regions_are_pooled_into_bins() {
    let spec = RegionPool { kind: RegionKind::Mean, bins: [7, 5], samples: 0, half_pixel: true, scale: 1.0 };
    let operands = ["f16[b;3;h;8]", "f32[n;4]", "i64[n]"];
    check(&Op::RegionPool(spec), &operands, "f16[n;3;7;5]");
    check(&Op::RegionPool(spec), &["f16[b;3;h;8]", "f32[n;4]", "i64[m]"], "f16[n;3;7;5] | n = m");
    refuse(&Op::RegionPool(spec), &["f16[b;3;h;8]", "f16[n;4]", "i64[n]"], "regions is f16, and f32 or f64 is needed");
    let empty = ["f16[b;3;h;0]", "f32[n;4]", "i64[n]"];
    refuse(&Op::RegionPool(spec), &empty, "the extent of axis 3 of x is 0, which is less than 1");
    refuse(&Op::RegionPool(RegionPool { bins: [0, 5], ..spec }), &operands, "there are 0x5 bins");
    let elements = RegionPool { kind: RegionKind::Elements, ..spec };
    refuse(&Op::RegionPool(elements), &operands, "bins of whole elements have no samples");
}

#[test]
fn reductions_keep_their_axes() {
    let sum = Op::Reduce(Reduce { kind: ReduceKind::Sum, axes: Axes::of([1, 2]) });
    check(&sum, &["f32[n;3;h]"], "f32[n;1;1]");
    refuse(&sum, &["f32[n;3]"], "axis 2 is outside rank 2");
    refuse(&sum, &["bool[n;3;h]"], "x is bool, and a number type is needed");
    let arg = Op::ArgReduce(ArgReduce { largest: true, axis: 1, select_last: false });
    check(&arg, &["f16[n;3]"], "i64[n;1]");
    refuse(&arg, &["f16[n;0]"], "the extent of axis 1 is 0, which is less than 1");
    let softmax = Op::Softmax(Softmax { axis: 1, log: false });
    check(&softmax, &["f16[n;3]"], "f16[n;3]");
    refuse(&softmax, &["i64[n;3]"], "x is i64, and a float type is needed");
    let cum_sum = Op::CumSum { axis: 0, exclusive: false, reverse: true };
    check(&cum_sum, &["i64[n;3]"], "i64[n;3]");
    refuse(&cum_sum, &["i64[]"], "axis 0 is outside rank 0");
}

#[test]
fn norms_have_three_results() {
    let norm = Op::Norm(Norm { kind: NormKind::Layer, axis: 2, epsilon: Scalar::float(DType::F32, 1e-5) }, None);
    check(&norm, &["f16[b;s;384]", "f16[384]"], "f16[b;s;384], f32[b;s;1], f32[b;s;1]");
    refuse(&norm, &["f16[b;s;384]", "f16[383]"], "extent 383 of axis 0 of scale does not broadcast to 384");
    refuse(&norm, &["f16[b;s;384]", "_", "f32[384]"], "bias is f32, and f16 is needed");
    let group = Op::GroupNorm(GroupNorm { groups: 4, epsilon: Scalar::float(DType::F32, 1e-5) }, None);
    check(&group, &["f32[n;8;h;w]", "f32[8]", "f32[8]"], "f32[n;8;h;w]");
    refuse(&group, &["f32[n;6;h;w]", "f32[6]", "f32[6]"], "the channels are 6, which 4 groups do not divide");
    refuse(&group, &["f32[n;8;h;w]", "f32[8]"], "operand bias is missing");
}

#[test]
fn top_k_takes_no_more_than_there_are() {
    let op = |k: &str| Op::TopK { axis: 1, largest: true, k: k.parse().unwrap() };
    check(&op("5"), &["f32[n;9]"], "f32[n;5], i64[n;5]");
    check(&op("5"), &["f32[n;m]"], "f32[n;5], i64[n;5] | max(0, m - 5) = m - 5");
    refuse(&op("10"), &["f32[n;9]"], "10 elements are asked of axis 1, which has 9");
}

#[test]
fn reshapes_keep_the_count() {
    let op = |dims: &[&str]| Op::Reshape(exprs(dims));
    check(&op(&["b*s", "384"]), &["f32[b;s;12;32]"], "f32[b*s;384]");
    check(&op(&["b", "t"]), &["f32[b;s]"], "f32[b;t] | b*s = b*t");
    refuse(&op(&["5"]), &["f32[2;3]"], "[2, 3] has 6 elements, and [5] has 5");
    refuse(&op(&["s", "0"]), &["f32[s]"], "[s] has s elements, and [s, 0] has 0");
}

#[test]
fn transposes_and_expansions() {
    let op = |perm: &[u8]| {
        let mut spec = Transpose { rank: perm.len() as u8, perm: [0; MAX_RANK] };
        spec.perm[..perm.len()].copy_from_slice(perm);
        Op::Transpose(spec)
    };
    check(&op(&[2, 0, 1]), &["i4[a;b;c]"], "i4[c;a;b]");
    refuse(&op(&[0, 0]), &["f32[a;b]"], "the permutation [0, 0] has no axis 1");
    refuse(&op(&[0, 1]), &["f32[a]"], "the permutation has 2 axes, and x has 1");
    let expand = |dims: &[&str]| Op::Expand(exprs(dims));
    check(&expand(&["b", "4", "5"]), &["f32[4;1]"], "f32[b;4;5]");
    refuse(&expand(&["1"]), &["f32[3]"], "extent 3 of axis 0 of x does not broadcast to 1");
    refuse(&expand(&["3"]), &["f32[1;3]"], "x has rank 2, which is more than the result's 1");
}

#[test]
fn slices_stay_inside() {
    let op = |starts: &[&str], steps: &[i64], dims: &[&str]| Op::Slice {
        starts: exprs(starts),
        steps: steps.to_vec(),
        dims: exprs(dims),
    };
    check(&op(&["1", "s - 1"], &[2, -1], &["2", "s"]), &["f32[5;s]"], "f32[2;s]");
    check(&op(&["9"], &[1], &["0"]), &["f32[5]"], "f32[0]");
    refuse(&op(&["4"], &[1], &["2"]), &["f32[5]"], "position 5 is outside axis 0 of extent 5");
    refuse(&op(&["0"], &[-1], &["2"]), &["f32[5]"], "position -1 is outside axis 0 of extent 5");
    refuse(&op(&["0"], &[0], &["2"]), &["f32[5]"], "the step of axis 0 is 0");
    refuse(&op(&["0"], &[1], &["-2"]), &["f32[5]"], "the extent of axis 0 of the result is -2, which is less than 0");
    refuse(&op(&["0"], &[1], &["2"]), &["f32[5;5]"], "there are 1 starts, 1 steps and 1 extents for rank 2");
}

#[test]
fn concatenations_add_up() {
    let op = Op::Concat { axis: 1 };
    check(&op, &["f32[b;3]", "f32[b;s]", "f32[b;4]"], "f32[b;s + 7]");
    check(&op, &["f32[a;3]", "f32[8;4]"], "f32[8;7] | a = 8");
    refuse(&op, &["f32[2;3]", "f32[3;4]"], "the extents of axis 0 of operands 0 and 1 differ: 2 and 3");
    refuse(&op, &["f32[2;3]", "f16[2;4]"], "operand 1 is f16, and f32 is needed");
    refuse(&op, &["f32[2]"], "axis 1 is outside rank 1");
    refuse(&op, &[], "there is no operand 0");
}

#[test]
fn paddings_add_and_crop() {
    let op = |mode, lo: &[&str], hi: &[&str]| Op::Pad { mode, lo: exprs(lo), hi: exprs(hi) };
    check(&op(PadMode::Constant, &["1", "-1"], &["p", "0"]), &["f32[a;4]", "f32[]"], "f32[a + p + 1;3]");
    refuse(&op(PadMode::Edge, &["1"], &["1"]), &["f32[4]", "f32[]"], "Edge padding takes no value");
    refuse(&op(PadMode::Edge, &["1"], &["1"]), &["f32[0]"], "axis 0 has no element to pad with");
    refuse(
        &op(PadMode::Constant, &["-3"], &["-2"]),
        &["f32[4]"],
        "the padded extent of axis 0 is -1, which is less than 0",
    );
    refuse(&op(PadMode::Constant, &["1"], &["1"]), &["f32[4]", "f16[]"], "value is f16, and f32 is needed");
}

#[test]
fn gathers_replace_axes() {
    check(&Op::Gather { axis: 1 }, &["f32[a;9;c]", "i64[s;2]"], "f32[a;s;2;c]");
    check(&Op::Gather { axis: 0 }, &["f32[9]", "i32[]"], "f32[]");
    refuse(&Op::Gather { axis: 0 }, &["f32[9]", "f32[]"], "indices is f32, and i32 or i64 is needed");
    refuse(&Op::Gather { axis: 1 }, &["f32[9]", "i32[]"], "axis 1 is outside rank 1");
    check(&Op::GatherElements { axis: 1 }, &["f32[a;9]", "i64[a;20]"], "f32[a;20]");
    refuse(
        &Op::GatherElements { axis: 1 },
        &["f32[3;9]", "i64[4;9]"],
        "axis 0 of indices has extent 4, and data has 3",
    );
    check(&Op::GatherNd { batch_dims: 1 }, &["f32[b;5;6;7]", "i64[b;n;2]"], "f32[b;n;7]");
    refuse(
        &Op::GatherNd { batch_dims: 0 },
        &["f32[5]", "i64[n;2]"],
        "indices address 2 axes, and between 1 and 1 can be",
    );
    refuse(&Op::GatherNd { batch_dims: 0 }, &["f32[5]", "i64[n]"], "the last extent n of indices is not a constant");
}

#[test]
fn scatters_return_data() {
    let elements = |mode| Op::ScatterElements { axis: 0, mode };
    check(&elements(ScatterMode::Add), &["f32[a;4]", "i64[b;4]", "f32[b;4]"], "f32[a;4]");
    refuse(&elements(ScatterMode::Add), &["bool[3]", "i64[2]", "bool[2]"], "data is bool, and a number type is needed");
    refuse(
        &elements(ScatterMode::Set),
        &["f32[3]", "i64[2]", "f32[3]"],
        "the extents of axis 0 of updates and of what it updates differ: 3 and 2",
    );
    let nd = Op::ScatterNd { mode: ScatterMode::Set };
    check(&nd, &["f32[a;b;4]", "i64[n;2]", "f32[n;4]"], "f32[a;b;4]");
    refuse(&nd, &["f32[a;b;4]", "i64[n;2]", "f32[n]"], "updates has rank 1, and 2 is needed");
}

#[test]
fn resizes_state_their_extents() {
    let spec = Resize {
        mode: ResizeMode::Linear,
        coordinates: CoordinateMode::HalfPixel,
        antialias: false,
        exclude_outside: false,
        cubic_coeff_a: -0.75,
        extrapolation_value: 0.0,
        scales: [0.0; MAX_RANK],
    };
    check(&Op::Resize(spec, exprs(&["n", "2*h"])), &["f32[n;h]"], "f32[n;2*h]");
    refuse(&Op::Resize(spec, exprs(&["n"])), &["f32[n;h]"], "there are 1 result extents for rank 2");
    refuse(&Op::Resize(spec, exprs(&["n"])), &["f32[n]", "f32[2]"], "roi is given, and the coordinates do not use it");
    let crop = Resize { coordinates: CoordinateMode::TfCropAndResize, ..spec };
    refuse(&Op::Resize(crop, exprs(&["n"])), &["f32[n]"], "operand roi is missing");
    refuse(
        &Op::Resize(crop, exprs(&["n"])),
        &["f32[n]", "f32[3]"],
        "the elements of roi and twice the rank differ: 3 and 2",
    );
}

#[test]
fn recurrent_layers_check_every_operand() {
    let none = Activation { kind: ActivationKind::Tanh, alpha: 0.0, beta: 0.0 };
    let op = |cell, direction| {
        Op::Recurrent(Recurrent {
            cell,
            direction,
            hidden: 16,
            clip: f32::INFINITY,
            activations: [none; 6],
            input_forget: false,
        })
    };
    let lstm = op(Cell::Lstm, Direction::Bidirectional);
    check(
        &lstm,
        &["f32[s;b;8]", "f32[2;64;8]", "f32[2;64;16]", "_", "i32[b]", "f32[2;b;16]"],
        "f32[s;2;b;16], f32[2;b;16], f32[2;b;16]",
    );
    refuse(
        &lstm,
        &["f32[s;b;8]", "f32[1;64;8]", "f32[2;64;16]"],
        "the extent of axis 0 of w and what the layer needs differ: 1 and 2",
    );
    let gru = op(Cell::Gru { linear_before_reset: true }, Direction::Reverse);
    check(&gru, &["f32[s;b;8]", "f32[1;48;8]", "f32[1;48;16]", "f32[1;96]"], "f32[s;1;b;16], f32[1;b;16]");
    let extra = ["f32[s;b;8]", "f32[1;48;8]", "f32[1;48;16]", "_", "_", "_", "f32[1;b;16]"];
    refuse(&gru, &extra, "initial_c is given, and only an LSTM reads it");
}

#[test]
fn made_up_tensors() {
    let range = Op::Range { count: "n - 1".parse().unwrap() };
    check(&range, &["i64[]", "i64[]"], "i64[n - 1]");
    refuse(&range, &["i64[]", "i32[]"], "delta is i32, and i64 is needed");
    refuse(&range, &["i64[2]", "i64[]"], "the elements of start and 1 differ: 2 and 1");
    check(&Op::Extents { values: exprs(&["n", "3"]), rank: 1 }, &[], "i64[2]");
    check(&Op::Extents { values: exprs(&["n"]), rank: 0 }, &[], "i64[]");
    refuse(&Op::Extents { values: exprs(&["n", "3"]), rank: 0 }, &[], "a scalar holds one extent, and there are 2");
    refuse(&Op::Extents { values: exprs(&["n"]), rank: 1 }, &["f32[]"], "there are 1 operands, and at most 0 can be");
    check(&Op::RunCount, &[], "u64[]");
    refuse(&Op::RunCount, &["f32[]"], "there are 1 operands, and at most 0 can be");
}

#[test]
fn branches_agree() {
    let region = |input: &str, output: &str| {
        let mut graph = Graph::new("branch");
        graph.add_input("x", ty(input));
        let y = graph.add_input("y", ty(output));
        graph.add_output("y", y);
        Region(Box::new(graph))
    };
    let op = |a: &str, b: &str| Op::If { then_region: region("f32[n]", a), else_region: region("f32[n]", b) };
    check(&op("f32[4]", "f32[4]"), &["bool[]", "f32[n]", "f32[4]"], "f32[4]");
    check(&op("f32[m]", "f32[m]"), &["bool[1]", "f32[n]", "f32[4]"], "f32[m] | 4 = m");
    refuse(
        &op("f32[4]", "f32[5]"),
        &["bool[]", "f32[n]", "f32[4]"],
        "the extents of capture 1 and the input of the else branch differ: 4 and 5",
    );
    refuse(
        &op("f32[4]", "f16[4]"),
        &["bool[]", "f32[n]", "f32[4]"],
        "capture 1 and the input of the else branch differ: f32[4] and f16[4]",
    );
    refuse(&op("f32[4]", "f32[4]"), &["bool[]", "f32[n]"], "the then branch reads 2 captures, and there are 1");
    refuse(&op("f32[4]", "f32[4]"), &["i64[]", "f32[n]", "f32[4]"], "condition is i64, and bool is needed");
    refuse(
        &op("f32[4]", "f32[4]"),
        &["bool[2]", "f32[n]", "f32[4]"],
        "the elements of condition and 1 differ: 2 and 1",
    );
}

#[test]
fn a_loop_gives_what_it_takes() {
    let body = |inputs: &[&str], outputs: &[&str]| {
        let mut graph = Graph::new("body");
        for (k, input) in inputs.iter().enumerate() {
            graph.add_input(&format!("in{k}"), ty(input));
        }
        for (k, output) in outputs.iter().enumerate() {
            let value = graph.add_input(&format!("out{k}"), ty(output));
            graph.add_output("out", value);
        }
        // Outputs that are captures, so that their types can be said.
        Region(Box::new(graph))
    };
    let op = |carried: u32, most: &str, body: Region| Op::Loop { body, carried, most: exprs(&[most]).remove(0) };
    // Carries f32[4], watches nothing, collects i32[n].
    let counted = op(1, "7", body(&["i64[]", "f32[4]"], &["f32[4]", "i32[n]"]));
    let inputs = |first: &str| {
        let inputs = ["", "", first, "f32[4]", "i32[n]"].map(|text| (!text.is_empty()).then(|| ty(text)));
        inputs.to_vec()
    };
    let run = |op: &Op, inputs: &[Option<Type>]| {
        let inputs: Vec<Option<&Type>> = inputs.iter().map(Option::as_ref).collect();
        let range = |expr: &Expr| expr.range(&|_| (1, 8));
        infer(op, &inputs, &mut Inference { range: &range, constraints: Vec::new() })
    };
    assert_eq!(run(&counted, &inputs("f32[4]")), Ok(vec![ty("f32[4]"), ty("i32[7;n]"), ty("i64[]")]));
    let differs = "the extents of carried value 0 and the body's input differ: 4 and 5";
    assert_eq!(run(&counted, &inputs("f32[5]")), Err(differs.to_owned()));
    let mut watched = inputs("f32[4]");
    watched[0] = Some(ty("i64[1]"));
    assert_eq!(run(&counted, &watched), Ok(vec![ty("f32[4]"), ty("i32[7;n]"), ty("i64[]")]));
    let endless = op(1, &i64::MAX.to_string(), body(&["i64[]", "f32[4]"], &["f32[4]", "i32[n]"]));
    assert_eq!(run(&endless, &watched), Err("nothing bounds the number of rows".to_owned()));
    watched[0] = Some(ty("i32[]"));
    assert_eq!(run(&counted, &watched), Err("rounds is i32, and i64 is needed".to_owned()));
    let moving = op(1, "7", body(&["i64[]", "f32[4]"], &["f32[8]"]));
    let moving = run(&moving, &[None, None, Some(ty("f32[4]")), Some(ty("f32[8]"))]);
    assert_eq!(moving, Err("the extents of carried value 0 before and behind a round differ: 4 and 8".to_owned()));
    let condition = op(0, "7", body(&["i64[]"], &["f32[]"]));
    let condition = run(&condition, &[None, Some(ty("bool[]")), Some(ty("f32[]"))]);
    assert_eq!(condition, Err("condition is f32, and bool is needed".to_owned()));
}

/// An extent that doubles its formula with every layer is refused before it fills the memory.
#[test]
fn formulas_that_grow_without_bound_are_refused() {
    let mut x = ty("f32[1;1;h]");
    let window =
        Window { rank: 1, size: [3, 1, 1], stride: [3, 1, 1], dilation: [1; 3], pad_lo: [0; 3], pad_hi: [0; 3] };
    let w = ty("f32[1;1;3]");
    let conv = Op::Conv(Conv { window, groups: 1, math: Math::Exact }, None);
    let range = |expr: &Expr| expr.range(&|_| (1 << 20, 1 << 32));
    let mut cx = Inference { range: &range, constraints: Vec::new() };
    let mut layer = |x: &Type| {
        let shorter = infer(&conv, &[Some(x), Some(&w)], &mut cx)?.remove(0);
        let joined = infer(&Op::Concat { axis: 2 }, &[Some(x), Some(&shorter)], &mut cx)?.remove(0);
        Ok::<Type, String>(infer(&conv, &[Some(&joined), Some(&w)], &mut cx)?.remove(0))
    };
    let failure = (0..64).find_map(|_| match layer(&x) {
        Ok(next) => {
            x = next;
            None
        }
        Err(reason) => Some(reason),
    });
    let expected = "the extent of axis 2 of the result is a formula of more than 1024 parts";
    assert_eq!(failure.as_deref(), Some(expected));
    let sum = "a + b + c + d + e + f + g + h + i";
    let dims = [sum, sum, sum, sum, sum].map(str::to_owned).join(";");
    refuse(
        &Op::Reshape(exprs(&["a"])),
        &[&format!("f32[{dims}]")],
        "the number of elements is a formula of 59049 terms, and the most are 4096",
    );
}
