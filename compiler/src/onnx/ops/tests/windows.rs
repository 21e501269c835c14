//! Windows over extents that are formulas: what a symbolic dimension gives is what the same model gives for its value.

use lapidary_runtime::DType;

use super::fixture::{Attr, Case, counted, floats};

/// One window operator on x `[1, 2, height, 9]`; weights for the convolutions.
fn windowed(op: &str, height: &str, attrs: &[(&str, Attr)]) -> Case {
    let inputs = if op == "Conv" { "x w" } else { "x" };
    let case = Case::new(19).input("x", DType::F32, &["1", "2", height, "9"]);
    let case = if height == "h" { case.dim("h=4:6:40") } else { case };
    let case = if op == "Conv" { case.constant("w", counted(&[3, 2, 3, 2])) } else { case };
    case.node(op, inputs, "y", attrs)
}

fn same(side: &'static str, stride: &'static [i64]) -> Vec<(&'static str, Attr)> {
    vec![("auto_pad", Attr::Text(side)), ("strides", Attr::Ints(stride))]
}

fn with_kernel(mut attrs: Vec<(&'static str, Attr)>, size: &'static [i64]) -> Vec<(&'static str, Attr)> {
    attrs.push(("kernel_shape", Attr::Ints(size)));
    attrs
}

#[test]
fn same_padding_of_a_symbolic_axis_is_that_of_its_values() {
    for op in ["Conv", "MaxPool", "AveragePool", "LpPool"] {
        for side in ["SAME_UPPER", "SAME_LOWER"] {
            let attrs = || with_kernel(same(side, &[2, 3]), &[3, 2]);
            let symbolic = windowed(op, "h", &attrs());
            assert_eq!(symbolic.dims()[2], "floor(h + 1, 2)", "{op} {side}");
            for height in [5usize, 6] {
                let x = counted(&[1, 2, height, 9]);
                let fixed = windowed(op, &height.to_string(), &attrs());
                let (given, expected) = (symbolic.run(std::slice::from_ref(&x)), fixed.run(&[x]));
                assert_eq!(given.dims, expected.dims, "{op} {side} {height}");
                // A mean over a computed padding is a quotient of two means.
                let pairs = given.to_f64s().into_iter().zip(expected.to_f64s());
                assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-5), "{op} {side} {height}");
            }
        }
    }
}

#[test]
fn padding_is_a_node_only_where_it_must_be() {
    let nodes = |attrs: &[(&str, Attr)]| windowed("MaxPool", "h", attrs).import().map(|graph| graph.node_count());
    let with = |side, stride, kernel| with_kernel(same(side, stride), kernel);
    // Windows of 2 at every second element: whether h is odd shows behind the axis alone, or before it.
    assert_eq!(nodes(&with("SAME_UPPER", &[2, 2], &[2, 2])), Ok(1));
    assert_eq!(nodes(&with("SAME_LOWER", &[2, 2], &[2, 2])), Ok(2));
    // Windows at every element are padded alike whatever the extent.
    assert_eq!(nodes(&with("SAME_LOWER", &[1, 1], &[4, 2])), Ok(1));
}

#[test]
fn an_average_over_a_computed_padding_counts_what_is_inside() {
    let attrs = with_kernel(same("SAME_LOWER", &[2, 1]), &[3, 1]);
    let x = floats(&[1, 2, 4, 9], &[6.0; 72]);
    assert!(windowed("AveragePool", "h", &attrs).run(&[x]).to_f64s().iter().all(|&mean| mean == 6.0));
}

#[test]
fn ceil_mode_starts_no_window_behind_the_axis() {
    let of = |kernel, stride, pads| {
        let attrs = [
            ("kernel_shape", Attr::Ints(kernel)),
            ("strides", Attr::Ints(stride)),
            ("pads", Attr::Ints(pads)),
            ("ceil_mode", Attr::Int(1)),
        ];
        windowed("MaxPool", "h", &attrs).dims()[2].clone()
    };
    assert_eq!(of(&[3, 1], &[2, 1], &[0, 0, 0, 0]), "floor(h, 2)");
    // The padding behind the axis would make room for one more, which would hold nothing else.
    assert_eq!(of(&[2, 1], &[2, 1], &[1, 0, 1, 0]), "floor(h, 2) + 1");
    assert_eq!(of(&[1, 1], &[3, 1], &[0, 0, 0, 0]), "floor(h + 2, 3)");
}

#[test]
fn faults_of_windows_say_what_does_not_fit() {
    let indexed = Case::new(19).input("x", DType::F32, &["1", "2", "h", "9"]).dim("h=4:6:40").node(
        "MaxPool",
        "x",
        "z y",
        &with_kernel(same("SAME_UPPER", &[2, 1]), &[3, 1]),
    );
    assert_eq!(indexed.fault(), "indices of maxima with a padding that depends on the extents are not supported");
    let fault = |attrs: &[(&str, Attr)]| windowed("Conv", "h", attrs).fault();
    assert_eq!(fault(&[("kernel_shape", Attr::Ints(&[3, 3]))]), "kernel_shape is [3, 3], and the weights have [3, 2]");
    assert_eq!(fault(&[("strides", Attr::Ints(&[2]))]), "strides has 1 numbers, and 2 are needed");
    assert_eq!(fault(&[("pads", Attr::Ints(&[0, 0, -1, 0]))]), "pads has -1, and at least 0 is needed");
    assert_eq!(fault(&[("group", Attr::Int(0))]), "group is 0, and must be positive");
    let volume = Case::new(19).input("x", DType::F32, &["1", "2", "3", "4", "5", "6"]).node("MaxPool", "x", "y", &[]);
    assert_eq!(volume.fault(), "a window over 4 spatial axes is not supported");
    // The node defines no default for it.
    assert_eq!(windowed("MaxPool", "h", &[]).fault(), "attribute \"kernel_shape\" (INTS) is missing");
}

#[test]
fn a_transposed_convolution_crops_to_the_stride() {
    let of = |kernel: usize, attrs: &[(&str, Attr)]| {
        Case::new(11)
            .input("x", DType::F32, &["1", "1", "d"])
            .dim("d=1:2:9")
            .constant("w", counted(&[1, 1, kernel]))
            .node("ConvTranspose", "x w", "y", attrs)
    };
    assert_eq!(of(3, &same("SAME_UPPER", &[2])).dims()[2], "2*d");
    // Windows that do not meet leave nothing to crop, and no zeros behind the last.
    assert_eq!(of(1, &same("SAME_UPPER", &[3])).dims()[2], "3*d - 2");
    let fixed = [("strides", Attr::Ints(&[2][..])), ("output_shape", Attr::Ints(&[6]))];
    assert_eq!(of(3, &fixed).fault(), "what is cropped of spatial axis 0 depends on its extent d");
}
