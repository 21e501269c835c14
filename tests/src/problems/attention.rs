//! Problems of attention: extents around those of the tiles, shared heads, causal masks, masks of every shape, operands
//! that are parts of larger tensors.

use lapidary_runtime::DType::{self, BF16, F16, F32, F64};
use lapidary_runtime::op::{Attention, Math, Scalar, Unseen};
use lapidary_templates::{Expr, Kind, Operand, Problem, Strided};

use super::operand;

type Problems = Vec<(&'static str, Problem)>;

const PLAIN: Attention =
    Attention { scale: Scalar::float(F32, 0.125), causal: false, unseen: Unseen::Nan, math: Math::Exact };
const CAUSAL: Attention = Attention { causal: true, ..PLAIN };
const ZERO: Attention = Attention { unseen: Unseen::Zero, ..PLAIN };

/// Every problem of attention.
pub fn problems() -> Problems {
    [heads(), depths(), masks(), places()].concat()
}

/// Attention on whole tensors: the extents of q, k, and v, and of the mask where there is one.
fn attention(spec: Attention, dtype: DType, [q, k, v]: [&str; 3], mask: Option<&str>) -> Problem {
    let [q, k, v] = [q, k, v].map(|dims| operand(dtype, dims));
    let mut y = q.clone();
    y.dims[3] = v.dims[3].clone();
    let places = [&q, &k, &v, &y].map(|whole| Strided::contiguous(&whole.dims));
    let mut inputs: Vec<Option<Operand>> = [q, k, v].map(Some).into();
    inputs.extend(mask.map(|dims| Some(operand(dtype, dims))));
    Problem { kind: Kind::Attention(spec, Box::new(places)), inputs, outputs: vec![Some(y)] }
}

fn heads() -> Problems {
    let mut all = Problems::new();
    let own = |dims| [dims; 3];
    for dtype in [F16, BF16, F32, F64] {
        all.push(("attention", attention(PLAIN, dtype, own("1 12 128 64"), None)));
    }
    for dtype in [F16, BF16, F32] {
        all.push(("attention of 197", attention(PLAIN, dtype, own("2 3 197 64"), None)));
        all.push(("causal attention", attention(CAUSAL, dtype, own("1 4 512 64"), None)));
    }
    for dtype in [F16, F32] {
        let shared = ["2 8 100 64", "2 2 100 64", "2 2 100 64"];
        all.push(("grouped attention", attention(CAUSAL, dtype, shared, None)));
        let cache = ["2 12 1 64", "2 12 77 64", "2 12 77 64"];
        all.push(("attention of one query", attention(PLAIN, dtype, cache, None)));
        let earlier = ["1 3 90 64", "1 3 40 64", "1 3 40 64"];
        all.push(("causal attention to few", attention(CAUSAL, dtype, earlier, None)));
        let open = ["b 4 t 64", "b 4 s 64", "b 4 s 64"];
        all.push(("attention of any length", attention(PLAIN, dtype, open, Some("b 1 1 s"))));
        all.push(("causal attention of any length", attention(CAUSAL, dtype, own("b 2 s 64"), None)));
    }
    let against = Attention { scale: Scalar::float(F32, -0.3), ..PLAIN };
    all.push(("attention to the least alike", attention(against, F16, own("1 2 70 64"), None)));
    all
}

fn depths() -> Problems {
    let mut all = Problems::new();
    let halves = [
        ["1 2 150 80", "1 2 150 80", "1 2 150 80"],
        ["1 2 150 32", "1 2 150 32", "1 2 150 32"],
        ["1 2 150 40", "1 2 150 40", "1 2 150 40"],
        ["1 2 150 96", "1 2 150 96", "1 2 150 96"],
        ["1 2 150 128", "1 2 150 128", "1 2 150 128"],
        ["1 2 150 160", "1 2 150 160", "1 2 150 160"],
        ["1 2 150 256", "1 2 150 256", "1 2 150 256"],
        ["1 2 70 64", "1 2 90 64", "1 2 90 24"],
        ["1 2 70 8", "1 2 90 8", "1 2 90 136"],
    ];
    for dims in halves {
        all.push(("attention by depth", attention(PLAIN, F16, dims, None)));
    }
    let others =
        [["1 2 70 7", "1 2 90 7", "1 2 90 5"], ["1 1 40 300", "1 1 33 300", "1 1 33 300"], halves[0], halves[6]];
    for dtype in [F16, F32, F64] {
        for dims in others {
            all.push(("attention of any depth", attention(PLAIN, dtype, dims, None)));
        }
    }
    all
}

fn masks() -> Problems {
    let mut all = Problems::new();
    let dims = ["2 3 90 64", "2 3 130 64", "2 3 130 64"];
    let deep = ["1 2 150 128", "1 2 150 128", "1 2 150 128"];
    for dtype in [F16, BF16, F32] {
        for mask in ["2 1 1 130", "1 1 90 130", "90 130", "2 3 90 130", "3 1 130", "2 1 90 1"] {
            all.push(("masked attention", attention(PLAIN, dtype, dims, Some(mask))));
        }
        all.push(("attention that sees nothing", attention(ZERO, dtype, dims, Some("2 1 90 130"))));
        let causal = Attention { causal: true, ..ZERO };
        all.push(("masked causal attention", attention(causal, dtype, deep, Some("1 2 150 150"))));
    }
    all.push(("masked attention", attention(PLAIN, F64, dims, Some("2 3 90 130"))));
    all
}

/// Operands and results that are parts of larger tensors.
fn places() -> Problems {
    let mut all = Problems::new();
    let at = |offset: i64, strides: [i64; 4]| Strided {
        offset: Expr::constant(offset),
        strides: strides.map(Expr::constant).into(),
    };
    let viewed = |spec, dtype, dims, mask, places: [Strided; 4]| {
        let problem = attention(spec, dtype, dims, mask);
        Problem { kind: Kind::Attention(spec, Box::new(places)), ..problem }
    };
    for dtype in [F16, BF16, F32] {
        // [b, n, (q, k, v) of 3 heads of 64], results [b, n, h, e].
        let packed = |part: i64| at(part * 192, [70 * 576, 64, 576, 1]);
        let tokens = at(0, [70 * 192, 64, 192, 1]);
        let places = [packed(0), packed(1), packed(2), tokens];
        all.push(("attention of packed tokens", viewed(CAUSAL, dtype, ["2 3 70 64"; 3], None, places)));
        // Keys as [b, g, d, m], queries and results as [n, b, h, d].
        let (rows, keys) = (at(0, [4 * 24, 24, 2 * 4 * 24, 1]), at(5, [2 * 24 * 50, 24 * 50, 1, 50]));
        let places = [rows.clone(), keys, at(1, [2 * 50 * 24, 50 * 24, 24, 1]), rows];
        let dims = ["2 4 33 24", "2 2 50 24", "2 2 50 24"];
        all.push(("attention of transposed keys", viewed(PLAIN, dtype, dims, Some("2 1 1 50"), places)));
    }
    all
}
