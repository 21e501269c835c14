//! Sparse tensors, made dense.

use lapidary::diag::Result;
use lapidary::onnx::proto::{SparseTensorProto, TensorProto};
use lapidary::onnx::{External, TensorRef, densify};

use crate::{loaded, model, place, raw, refused};

fn sparse(dims: &[i64], values: &[u8], indices: &[i64], index_dims: &[i64]) -> SparseTensorProto {
    let values = raw(2, &[values.len() as i64], values);
    let indices = TensorProto { int64_data: indices.to_vec(), raw_data: None, ..raw(7, index_dims, &[]) };
    SparseTensorProto { values: Some(Box::new(values)), indices: Some(Box::new(indices)), dims: dims.to_vec() }
}

fn dense(tensor: &SparseTensorProto) -> Result<TensorRef> {
    densify(tensor, &External::default(), &place())
}

#[test]
fn both_kinds_of_indices_are_read() {
    for tensor in [sparse(&[2, 3], &[7, 9], &[1, 5], &[2]), sparse(&[2, 3], &[7, 9], &[0, 1, 1, 2], &[2, 2])] {
        let dense = dense(&tensor).expect("a tensor");
        assert_eq!((dense.name.as_str(), dense.dims.as_slice()), ("w", &[2, 3][..]));
        assert_eq!(&dense.data[..], [0, 7, 0, 0, 0, 9]);
    }
    assert_eq!(&dense(&sparse(&[2], &[], &[], &[0])).expect("a tensor").data[..], [0, 0]);
}

#[test]
fn indices_must_fit() {
    for bad in [
        sparse(&[2, 3], &[7, 9], &[1, 6], &[2]),
        sparse(&[2, 3], &[7, 9], &[-1, 5], &[2]),
        sparse(&[2, 3], &[7, 9], &[5, 1], &[2]),
        sparse(&[2, 3], &[7, 9], &[1, 1], &[2]),
        sparse(&[2, 3], &[7, 9], &[0, 1, 0, 3], &[2, 2]),
        sparse(&[2, 3], &[7, 9], &[1], &[1]),
        sparse(&[2, 3], &[7, 9], &[0, 1, 2, 0, 1, 2], &[2, 3]),
        SparseTensorProto { values: None, ..sparse(&[1], &[], &[], &[0]) },
    ] {
        refused(dense(&bad), "E0220");
    }
    refused(dense(&sparse(&[-2], &[], &[], &[0])), "E0202");
}

#[test]
fn a_small_file_cannot_ask_for_much_memory() {
    refused(dense(&sparse(&[1 << 40], &[1], &[5], &[1])), "E0221");
    // Nor by asking often.
    let mut proto = model(Vec::new());
    if let Some(graph) = &mut proto.graph {
        graph.sparse_initializer = vec![sparse(&[200 << 20], &[1], &[5], &[1])];
    }
    assert!(loaded(&proto).is_ok());
    if let Some(graph) = &mut proto.graph {
        graph.sparse_initializer.push(sparse(&[200 << 20], &[1], &[5], &[1]));
    }
    refused(loaded(&proto), "E0221");
}
