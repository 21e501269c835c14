//! Regions of images.

use lapidary_runtime::DType;

use super::fixture::{Attr, Case, counted, floats};
use crate::ir::eval::Tensor;

/// Two images of 6 rows and 7 columns.
const IMAGES: [usize; 4] = [2, 1, 6, 7];

/// Twice as large as in elements: one inside, one that reaches over two sides, and one smaller than an element.
const REGIONS: [[f64; 4]; 3] = [[0.5, 1.0, 11.5, 9.0], [-6.0, 2.0, 4.0, 14.0], [3.0, 3.0, 3.5, 3.25]];

/// The image of each.
const OF: [i64; 3] = [1, 0, 1];

fn close(got: &Tensor, expected: &[f64]) {
    let got = got.to_f64s();
    assert_eq!(got.len(), expected.len());
    for (k, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() < 2e-5, "element {k}: {got} instead of {expected}");
    }
}

/// The numbers are those of `onnx.reference` 1.23.2, in f32.
#[test]
fn regions_say_how_often_their_bins_are_sampled() {
    let cases: [(&str, &str, [f64; 12]); 4] = [
        (
            "avg",
            "half_pixel",
            [
                -0.572917, -0.249999, 0.635416, -0.479166, 0.0, -2.101852, 0.0, 5.472223, -5.46875, -4.59375, -5.28125,
                -4.40625,
            ],
        ),
        (
            "avg",
            "output_half_pixel",
            [0.993056, 0.277779, 1.722222, -0.111113, -1.166667, -0.291667, 0.722222, 2.814815, 1.5, 5.0, 3.0, 5.0625],
        ),
        (
            "max",
            "half_pixel",
            [
                3.958333, 5.270833, 4.791666, 5.270833, 0.0, 4.583333, 0.0, 10.083333, 0.060547, 0.181641, 0.056641,
                0.169922,
            ],
        ),
        ("max", "output_half_pixel", [5.958333, 5.958333, 6.25, 5.666664, 0.5, 3.0, 4.0, 8.25, 2.25, 2.25, 2.25, 2.25]),
    ];
    for (mode, coordinates, expected) in cases {
        let attrs = [
            ("mode", Attr::Text(mode)),
            ("coordinate_transformation_mode", Attr::Text(coordinates)),
            ("output_height", Attr::Int(2)),
            ("output_width", Attr::Int(2)),
            ("spatial_scale", Attr::Float(0.5)),
        ];
        let case = Case::new(22)
            .input("x", DType::F32, &["2", "1", "6", "7"])
            .input("regions", DType::F32, &["n", "4"])
            .input("of", DType::I64, &["n"])
            .node("RoiAlign", "x regions of", "y", &attrs);
        let of = Tensor::from_i64s(DType::I64, vec![3], &OF);
        close(&case.run(&[counted(&IMAGES), floats(&[3, 4], &REGIONS.concat()), of]), &expected);
    }
}

/// The numbers are those of ONNX Runtime 1.31.1: sides are rounded half away from zero, and the last belongs to the
/// region; bins reach from the floor of their start to the ceiling of their end; one of nothing is 0.
#[test]
fn the_largest_elements_of_regions() {
    let attrs = [("pooled_shape", Attr::Ints(&[3, 2])), ("spatial_scale", Attr::Float(0.5))];
    let case = Case::new(22)
        .input("x", DType::F32, &["2", "1", "6", "7"])
        .input("regions", DType::F32, &["n", "5"])
        .node("MaxRoiPool", "x regions", "y", &attrs);
    assert_eq!(case.dims(), ["n", "1", "3", "2"]);
    let rows = OF.iter().zip(&REGIONS).flat_map(|(&of, region)| [&[of as f64], &region[..]].concat());
    let regions = floats(&[3, 5], &rows.collect::<Vec<f64>>());
    let expected = [11., 11., 11., 11., 10., 11., 0., 9., 0., 11., 0., 11., 4., 4., 4., 4., 4., 4.];
    assert_eq!(case.run(&[counted(&IMAGES), regions]).to_f64s(), expected);
}

#[test]
fn regions_of_other_shapes_are_refused() {
    let align = |attrs: &[(&str, Attr)]| {
        let case =
            Case::new(16).input("x", DType::F32, &["1", "2", "8", "8"]).input("regions", DType::F32, &["3", "4"]);
        case.input("of", DType::I64, &["3"]).node("RoiAlign", "x regions of", "y", attrs).fault()
    };
    assert_eq!(align(&[("output_height", Attr::Int(0))]), "attribute \"output_height\" says 0");
    assert_eq!(align(&[("sampling_ratio", Attr::Int(-1))]), "attribute \"sampling_ratio\" is -1");
    let pool = |rois: &[&str], attrs: &[(&str, Attr)]| {
        let case = Case::new(22).input("x", DType::F32, &["1", "2", "8", "8"]).input("regions", DType::F32, rois);
        case.node("MaxRoiPool", "x regions", "y", attrs).fault()
    };
    assert_eq!(pool(&["3", "5"], &[("pooled_shape", Attr::Ints(&[7]))]), "attribute \"pooled_shape\" has 1 numbers");
    let shape = [("pooled_shape", Attr::Ints(&[7, 7]))];
    assert_eq!(pool(&["3", "4"], &shape), "the extents 4 and 5 must be equal");
}
