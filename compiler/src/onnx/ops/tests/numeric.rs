//! Values: contractions, quantization, contributed operators.

use lapidary_runtime::DType;

use super::fixture::{Attr, Case, counted, floats};
use crate::ir::eval::Tensor;

/// The sum of products that an equation of letters states, by brute force.
fn einsum_of(equation: &str, operands: &[Tensor]) -> Vec<f64> {
    let (left, result) = equation.split_once("->").expect("an arrow");
    let terms: Vec<Vec<char>> = left.split(',').map(|term| term.chars().collect()).collect();
    let mut extents = std::collections::BTreeMap::new();
    for (term, operand) in terms.iter().zip(operands) {
        for (&label, &dim) in term.iter().zip(&operand.dims) {
            let extent = extents.entry(label).or_insert(1);
            *extent = dim.max(*extent);
        }
    }
    let labels: Vec<char> = extents.keys().copied().collect();
    let size = |label: &char| extents[label];
    let out: Vec<char> = result.chars().collect();
    let mut sums = vec![0.0; out.iter().map(size).product()];
    let values: Vec<Vec<f64>> = operands.iter().map(Tensor::to_f64s).collect();
    for flat in 0..labels.iter().map(size).product::<usize>() {
        let mut rest = flat;
        let index: std::collections::BTreeMap<char, usize> = labels
            .iter()
            .map(|label| {
                let at = rest % size(label);
                rest /= size(label);
                (*label, at)
            })
            .collect();
        let product: f64 = (0..terms.len())
            .map(|k| {
                let dims = &operands[k].dims;
                let at = terms[k].iter().zip(dims).fold(0, |at, (label, &dim)| at * dim + index[label].min(dim - 1));
                values[k][at]
            })
            .product();
        let at = out.iter().fold(0, |at, label| at * size(label) + index[label]);
        sums[at] += product;
    }
    sums
}

#[test]
fn einsum_equations() {
    let cases: &[(&str, &[&[usize]])] = &[
        ("bhid,bhjd->bhij", &[&[2, 3, 4, 5], &[2, 3, 6, 5]]),
        ("ij,jk->ki", &[&[3, 4], &[4, 5]]),
        ("ij,kj->ik", &[&[3, 4], &[5, 4]]),
        ("i,j->ji", &[&[3], &[4]]),
        ("ij,ij->ij", &[&[3, 4], &[3, 4]]),
        ("ij,ij->", &[&[3, 4], &[3, 4]]),
        ("ij->", &[&[3, 4]]),
        ("ii->i", &[&[4, 4]]),
        ("iji->j", &[&[4, 3, 4]]),
        ("iij,jk->ik", &[&[3, 3, 4], &[4, 2]]),
        ("ab,bc,cd->ad", &[&[2, 3], &[3, 4], &[4, 5]]),
        ("ab,ac,ad->bcd", &[&[3, 2], &[3, 4], &[3, 5]]),
        ("abc,acd,ae->bde", &[&[2, 3, 4], &[2, 4, 3], &[2, 2]]),
        ("abcd,cd->ba", &[&[2, 3, 4, 5], &[4, 5]]),
        ("ij,jk->ik", &[&[3, 1], &[4, 5]]),
        ("bij,bjk->bik", &[&[1, 3, 4], &[2, 4, 5]]),
    ];
    for (equation, shapes) in cases {
        let operands: Vec<Tensor> = shapes.iter().map(|dims| counted(dims)).collect();
        let names = ["a", "b", "c"];
        let mut case = Case::new(17);
        for (name, dims) in names.iter().zip(*shapes) {
            let dims: Vec<String> = dims.iter().map(usize::to_string).collect();
            case = case.input(name, DType::F32, &dims.iter().map(String::as_str).collect::<Vec<_>>());
        }
        let text: &'static str = equation;
        let case = case.node("Einsum", &names[..shapes.len()].join(" "), "y", &[("equation", Attr::Text(text))]);
        assert_eq!(case.run(&operands).to_f64s(), einsum_of(equation, &operands), "{equation}");
    }
}

#[test]
fn einsum_with_ellipsis_and_implied_result() {
    let case =
        |equation: &'static str| {
            Case::new(17)
                .input("a", DType::F32, &["batch", "2", "i", "j"])
                .input("b", DType::F32, &["2", "j", "k"])
                .node("Einsum", "a b", "y", &[("equation", Attr::Text(equation))])
        };
    let operands = [counted(&[3, 2, 4, 5]), counted(&[2, 5, 6])];
    let expected = einsum_of("xyij,yjk->xyik", &operands);
    for equation in ["...ij,...jk", "... i j, ...jk -> ...ik"] {
        assert_eq!(case(equation).dims(), ["batch", "2", "i", "k"]);
        assert_eq!(case(equation).run(&operands).to_f64s(), expected, "{equation}");
    }
    assert_eq!(case("...ij,...jk->ii").fault(), "the result of the equation must name axes of the operands, each once");
    assert_eq!(case("ij,jk").fault(), "a term of the equation names 2 axes, and its operand has 4");
}

#[test]
fn matmul_of_vectors() {
    let run = |a: &[usize], b: &[usize]| {
        let names = |dims: &[usize]| dims.iter().map(usize::to_string).collect::<Vec<_>>();
        let (a_dims, b_dims) = (names(a), names(b));
        Case::new(17)
            .input("a", DType::F32, &a_dims.iter().map(String::as_str).collect::<Vec<_>>())
            .input("b", DType::F32, &b_dims.iter().map(String::as_str).collect::<Vec<_>>())
            .node("MatMul", "a b", "y", &[])
            .run(&[counted(a), counted(b)])
    };
    let (v, w) = (counted(&[4]), counted(&[2, 4, 3]));
    assert_eq!(run(&[4], &[4]).dims, [0usize; 0]);
    assert_eq!(run(&[4], &[4]).to_f64s(), einsum_of("i,i->", &[v.clone(), v.clone()]));
    assert_eq!(run(&[4], &[2, 4, 3]).dims, [2, 3]);
    assert_eq!(run(&[4], &[2, 4, 3]).to_f64s(), einsum_of("i,bij->bj", &[v.clone(), w]));
    assert_eq!(run(&[2, 3, 4], &[4]).dims, [2, 3]);
    assert_eq!(run(&[2, 3, 4], &[4]).to_f64s(), einsum_of("bji,i->bj", &[counted(&[2, 3, 4]), v]));
}

#[test]
fn fused_matmul_scales_and_transposes() {
    let case = Case::new(17).input("a", DType::F32, &["4", "3"]).input("b", DType::F32, &["5", "4"]).node(
        "com.microsoft::FusedMatMul",
        "a b",
        "y",
        &[("transA", Attr::Int(1)), ("transB", Attr::Int(1)), ("alpha", Attr::Float(0.5))],
    );
    let operands = [counted(&[4, 3]), counted(&[5, 4])];
    let expected: Vec<f64> = einsum_of("ki,jk->ij", &operands).iter().map(|value| value / 2.0).collect();
    assert_eq!(case.run(&operands).to_f64s(), expected);
}

#[test]
fn integer_products_take_a_zero_point_a_row_and_a_column() {
    let bytes = |dtype, dims: &[usize], values: &[i64]| Tensor::from_i64s(dtype, dims.to_vec(), values);
    let case = Case::new(17)
        .input("a", DType::U8, &["2", "2"])
        .input("b", DType::I8, &["2", "3"])
        .constant("zero_a", bytes(DType::U8, &[2], &[1, 200]))
        .constant("zero_b", bytes(DType::I8, &[3], &[0, -1, 2]))
        .node("MatMulInteger", "a b zero_a zero_b", "y", &[]);
    let a = bytes(DType::U8, &[2, 2], &[0, 255, 200, 3]);
    let b = bytes(DType::I8, &[2, 3], &[1, -128, 127, 5, 0, -7]);
    let y = case.run(&[a, b]);
    assert_eq!((y.dtype, y.to_i64s()), (DType::I32, vec![1269, 381, -2411, -985, -197, 1773]));
}

#[test]
fn contributed_activations() {
    let x = [-3.0, -0.5, 0.0, 0.75, 4.0];
    let bias = [0.5, -1.0, 2.0, 0.0, 0.25];
    let run = |op: &str, operands: &str| {
        let case = Case::new(17).input("x", DType::F32, &["5"]).input("b", DType::F32, &["5"]);
        let y = case.node(op, operands, "y", &[]).run(&[floats(&[5], &x), floats(&[5], &bias)]);
        y.to_f64s()
    };
    let close = |given: Vec<f64>, expected: &dyn Fn(f64) -> f64, shift: &[f64]| {
        for ((y, x), b) in given.iter().zip(x).zip(shift) {
            assert!((y - expected(x + b)).abs() < 1e-6, "{y} is not {}", expected(x + b));
        }
    };
    let tanh = |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh());
    let none = [0.0; 5];
    close(run("com.microsoft::FastGelu", "x"), &tanh, &none);
    close(run("com.microsoft::FastGelu", "x b"), &tanh, &bias);
    close(run("com.microsoft::QuickGelu", "x"), &|x| x / (1.0 + (-1.702 * x).exp()), &none);
    // erf to seven digits at the points in use: 0.5 x (1 + erf(x / sqrt(2))).
    let at = |x: f64| match x {
        -3.0 => -0.004_049_694,
        -0.5 => -0.154_268_77,
        0.0 => 0.0,
        0.75 => 0.580_029_5,
        _ => 3.999_873_3,
    };
    close(run("com.microsoft::Gelu", "x"), &at, &none);
}

#[test]
fn half_precision_is_rounded_once() {
    let x: Vec<f64> = (0..64).map(|i| f64::from(i) / 8.0 - 4.0).collect();
    let x = Tensor::from_f64s(DType::F16, vec![64], &x);
    let y =
        Case::new(17).input("x", DType::F16, &["64"]).node("HardSwish", "x", "y", &[]).run(std::slice::from_ref(&x));
    let exact: Vec<f64> = x.to_f64s().iter().map(|x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)).collect();
    // One ulp at most: f32 arithmetic in between may turn a tie.
    for (y, exact) in y.to_f64s().iter().zip(exact) {
        assert!((y - exact).abs() <= exact.abs() / 2048.0 + 1e-6, "{y} for {exact}");
    }
}

#[test]
fn blocks_with_a_short_last_one() {
    let case = |columns: usize| {
        let names = columns.to_string();
        Case::new(21)
            .input("x", DType::I8, &["2", &names])
            .constant("scale", floats(&[2, 3], &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]))
            .node("DequantizeLinear", "x scale", "y", &[("axis", Attr::Int(1)), ("block_size", Attr::Int(2))])
    };
    for columns in [5, 6] {
        let count = 2 * columns;
        let x = Tensor::from_i64s(DType::I8, vec![2, columns], &(0..count as i64).collect::<Vec<_>>());
        let scale = |i: usize| 2f64.powi((i / columns * 3 + i % columns / 2) as i32);
        let expected: Vec<f64> = (0..count).map(|i| i as f64 * scale(i)).collect();
        assert_eq!(case(columns).run(&[x]).to_f64s(), expected, "{columns}");
    }
}

#[test]
fn dropout_gives_its_operand_and_ones() {
    let case = Case::new(17)
        .input("x", DType::F32, &["n"])
        .node("Dropout", "x", "kept mask", &[])
        .node("Cast", "mask", "ones", &[("to", Attr::Int(1))])
        .node("Add", "kept ones", "y", &[]);
    assert_eq!(case.run(&[floats(&[3], &[1.0, 2.0, 3.0])]).to_f64s(), [2.0, 3.0, 4.0]);
}

/// Operator set 6 broadcasts only where it is told to, and says at which axis.
#[test]
fn the_oldest_set_broadcasts_when_told() {
    let add = |attrs: &[(&str, Attr)]| {
        let case = Case::new(6).input("x", DType::F32, &["2", "3", "2"]).input("b", DType::F32, &["3"]);
        case.node("Add", "x b", "y", attrs)
    };
    let (x, b) = (counted(&[2, 3, 2]), floats(&[3], &[100.0, 200.0, 300.0]));
    let y = add(&[("broadcast", Attr::Int(1)), ("axis", Attr::Int(1))]).run(&[x.clone(), b]).to_f64s();
    let expected: Vec<f64> =
        x.to_f64s().iter().enumerate().map(|(k, x)| x + [100.0, 200.0, 300.0][k / 2 % 3]).collect();
    assert_eq!(y, expected);
    assert_eq!(add(&[]).fault(), "its operands have different shapes, and it has no broadcast = 1");
    let too_far = add(&[("broadcast", Attr::Int(1)), ("axis", Attr::Int(3))]);
    assert_eq!(too_far.fault(), "axis 3 is out of range for a tensor of rank 3");
    let slopes = Case::new(6).input("x", DType::F32, &["1", "2", "2"]).input("s", DType::F32, &["2"]);
    let y = slopes.node("PRelu", "x s", "y", &[]);
    let y = y.run(&[floats(&[1, 2, 2], &[-1.0, 1.0, -2.0, 2.0]), floats(&[2], &[10.0, 100.0])]);
    assert_eq!(y.to_f64s(), [-10.0, 1.0, -200.0, 2.0]);
}

/// Operator set 6 trains unless it is told not to.
#[test]
fn the_oldest_set_trains_unless_told() {
    let dropout = |attrs: &[(&str, Attr)]| Case::new(6).input("x", DType::F32, &["2"]).node("Dropout", "x", "y", attrs);
    assert_eq!(dropout(&[]).fault(), "Dropout in training mode is not supported");
    let x = floats(&[2], &[1.0, -2.0]);
    assert_eq!(dropout(&[("is_test", Attr::Int(1))]).run(std::slice::from_ref(&x)), x);
}
