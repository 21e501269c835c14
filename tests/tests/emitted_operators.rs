//! Emitted crates of one case of ONNX's backend suite for each group of operators, 43 in one workspace: each gives what
//! the suite expects in the compiler's process, and then the same bits out of its crate.
//!
//! `scripts/onnx-cases` makes the cases; without them this is skipped out loud.

use lapidary_tests::{emitted, root};

const CASES: [&str; 43] = [
    "test_add_bcast",
    "test_nonzero_example",
    "test_nonmaxsuppression_two_classes",
    "test_unique_sorted_with_axis_3d",
    "test_where_example",
    "test_cast_FLOAT_to_FLOAT16",
    "test_gelu_tanh_1",
    "test_prelu_broadcast",
    "test_softmax_axis_1",
    "test_reduce_max_default_axes_keepdim_example",
    "test_argmax_keepdims_example",
    "test_matmul_4d",
    "test_gemm_all_attributes",
    "test_einsum_batch_matmul",
    "test_transpose_all_permutations_3",
    "test_flatten_axis2",
    "test_concat_3d_axis_1",
    "test_depthtospace_example",
    "test_split_equal_parts_2d",
    "test_eyelike_with_dtype",
    "test_constant",
    "test_quantizelinear_axis",
    "test_dequantizelinear_axis",
    "test_dynamicquantizelinear",
    "test_qlinearconv",
    "test_matmulinteger",
    "test_conv_with_strides_padding",
    "test_convtranspose_group_2",
    "test_maxpool_2d_dilations",
    "test_averagepool_2d_ceil",
    "test_batchnorm_example",
    "test_layer_normalization_4d_axis2",
    "test_group_normalization_example",
    "test_lrn",
    "test_lstm_with_peepholes",
    "test_gru_with_initial_bias",
    "test_gather_0",
    "test_gathernd_example_float32",
    "test_scatternd_add",
    "test_attention_4d_gqa",
    "test_rotary_embedding",
    "test_nllloss_NC",
    "test_if",
];

#[test]
fn emitted_crates_give_the_bits_of_the_process() -> Result<(), String> {
    let root = root().canonicalize().map_err(|error| error.to_string())?;
    let cases = root.join("target/onnx-cases");
    if !cases.join("complete").is_file() {
        eprintln!("SKIPPED: no cases in target/onnx-cases; run scripts/onnx-cases");
        return Ok(());
    }
    let workspace = root.join("target/emitted-operators");
    let mut wrong = Vec::new();
    let mut crates = Vec::new();
    for case in CASES {
        let (dir, name) = (cases.join("node").join(case), case.to_lowercase());
        let saved = workspace.join("saved").join(&name);
        // `verify` compares with what the suite expects, by ONNX's rule, before it saves.
        let made =
            emitted::save(&dir, "cpu", &saved).and_then(|()| emitted::emit(&dir, &name, "cpu", &saved, &workspace));
        match made {
            Ok(_) => crates.push(name),
            Err(why) => wrong.push(format!("{case}: {why}")),
        }
    }
    let names: Vec<&str> = crates.iter().map(String::as_str).collect();
    let runner = emitted::build(&names, &workspace)?;
    for name in names {
        let weights = workspace.join(name).join("weights.bin");
        let compared = emitted::compare(&runner, name, &weights, &workspace.join("saved").join(name));
        wrong.extend(compared.err().map(|why| format!("{name}: {why}")));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n\n")) }
}
