//! Stored tensors: every element type from every field it may be in, and what must be refused.

use bytes::Bytes;
use lapidary::diag::Result;
use lapidary::onnx::proto::TensorProto;
use lapidary::onnx::proto::tensor_proto::{DataType, Segment};
use lapidary::onnx::{External, TensorRef, dtype_of};
use lapidary_runtime::DType;

use crate::{place, raw, refused};

fn decode(tensor: &TensorProto) -> Result<TensorRef> {
    lapidary::onnx::decode(tensor, &External::default(), &place())
}

fn bytes_of(tensor: &TensorProto) -> Vec<u8> {
    decode(tensor).unwrap_or_else(|found| panic!("{found}")).data.to_vec()
}

/// A tensor whose data is in `int32_data`.
fn int32(data_type: DataType, dims: &[i64], data: &[i32]) -> TensorProto {
    TensorProto { int32_data: data.to_vec(), raw_data: None, ..raw(data_type as i32, dims, &[]) }
}

fn bare(data_type: DataType, dims: &[i64]) -> TensorProto {
    TensorProto { raw_data: None, ..raw(data_type as i32, dims, &[]) }
}

#[test]
fn every_element_type_is_read_or_refused_by_name() {
    let mut read = Vec::new();
    for number in -1..=40 {
        match dtype_of(number, &place()) {
            Ok(dtype) => read.push(dtype),
            Err(found) => {
                refused::<()>(Err(found), "E0201");
            }
        }
    }
    read.sort();
    let mut all = DType::ALL;
    all.sort();
    assert_eq!(read, all);
    let text = refused(decode(&raw(DataType::String as i32, &[1], b"")), "E0201");
    assert!(text.contains("strings"), "{text}");
    refused(dtype_of(i32::MAX, &place()), "E0201");
}

#[test]
fn raw_data_of_every_type_has_the_size_of_its_elements() {
    for number in 1..=26 {
        let Ok(dtype) = dtype_of(number, &place()) else { continue };
        let need = dtype.bytes(3 * 5);
        let tensor = decode(&raw(number, &[3, 5], &vec![1; need])).expect("a tensor");
        assert_eq!((tensor.dtype, tensor.elements(), tensor.data.len()), (dtype, 15, need));
        assert_eq!(tensor.dims, [3, 5]);
        for wrong in [0, need - 1, need + 1] {
            let text = refused(decode(&raw(number, &[3, 5], &vec![1; wrong])), "E0203");
            assert!(text.contains(&format!("needs {need} bytes, but has {wrong}")), "{text}");
        }
    }
}

#[test]
fn typed_fields_become_little_endian_bytes() {
    let floats = TensorProto { float_data: vec![1.0, -2.5], ..bare(DataType::Float, &[2]) };
    assert_eq!(bytes_of(&floats), [0, 0, 128, 63, 0, 0, 32, 192]);
    let doubles = TensorProto { double_data: vec![1.0], ..bare(DataType::Double, &[]) };
    assert_eq!(bytes_of(&doubles), 1f64.to_le_bytes());
    let longs = TensorProto { int64_data: vec![i64::MIN, 2], ..bare(DataType::Int64, &[2, 1]) };
    assert_eq!(bytes_of(&longs), [i64::MIN.to_le_bytes(), 2i64.to_le_bytes()].concat());
    let unsigned = TensorProto { uint64_data: vec![u64::MAX], ..bare(DataType::Uint64, &[1]) };
    assert_eq!(bytes_of(&unsigned), [255; 8]);
    let unsigned = TensorProto { uint64_data: vec![0xffff_fffe], ..bare(DataType::Uint32, &[1]) };
    assert_eq!(bytes_of(&unsigned), [254, 255, 255, 255]);
}

#[test]
fn int32_data_holds_all_narrow_types() {
    let two = |data_type, data: [i32; 2]| bytes_of(&int32(data_type, &[2], &data));
    assert_eq!(two(DataType::Int32, [-1, 1]), [255, 255, 255, 255, 1, 0, 0, 0]);
    assert_eq!(two(DataType::Int16, [-2, 258]), [254, 255, 2, 1]);
    assert_eq!(two(DataType::Uint16, [65535, 258]), [255, 255, 2, 1]);
    assert_eq!(two(DataType::Int8, [-128, 127]), [128, 127]);
    assert_eq!(two(DataType::Uint8, [255, 0]), [255, 0]);
    assert_eq!(two(DataType::Bool, [0, 7]), [0, 1]);
    assert_eq!(two(DataType::Float16, [0x3c00, 0xc000]), [0, 0x3c, 0, 0xc0]);
    assert_eq!(two(DataType::Bfloat16, [0x3f80, -0x4080]), [0x80, 0x3f, 0x80, 0xbf]);
    for float8 in [
        DataType::Float8e4m3fn,
        DataType::Float8e4m3fnuz,
        DataType::Float8e5m2,
        DataType::Float8e5m2fnuz,
        DataType::Float8e8m0,
    ] {
        assert_eq!(two(float8, [0x38, 0xff]), [0x38, 0xff]);
    }
}

/// As in `raw_data`, an entry is a byte of two or of four elements; the last byte may be partly used.
#[test]
fn sub_byte_types_stay_packed() {
    for (data_type, elements, entries) in [
        (DataType::Int4, 3, vec![0x21, 0x0f]),
        (DataType::Uint4, 4, vec![0x21, 0xff]),
        (DataType::Float4e2m1, 1, vec![0x07]),
        (DataType::Uint2, 5, vec![0b1110_0100, 1]),
        (DataType::Int2, 8, vec![0b1110_0100, -1]),
    ] {
        let expected: Vec<u8> = entries.iter().map(|&e: &i32| e.to_le_bytes()[0]).collect();
        assert_eq!(bytes_of(&int32(data_type, &[elements], &entries)), expected);
        assert_eq!(bytes_of(&raw(data_type as i32, &[elements], &expected)), expected);
        let text = refused(decode(&int32(data_type, &[elements], &entries[1..])), "E0203");
        assert!(text.contains("bits an element") || text.contains("missing"), "{text}");
    }
}

#[test]
fn numbers_that_do_not_fit_are_refused() {
    for (data_type, entry) in [
        (DataType::Int8, 128),
        (DataType::Uint8, -1),
        (DataType::Int16, -32769),
        (DataType::Uint16, 65536),
        (DataType::Float16, 65536),
        (DataType::Float8e5m2, 256),
        (DataType::Int4, 256),
        (DataType::Int2, -129),
    ] {
        let text = refused(decode(&int32(data_type, &[1], &[entry])), "E0205");
        assert!(text.contains(&format!("is {entry}\n")), "{text}");
    }
    let tensor = TensorProto { uint64_data: vec![1 << 32], ..bare(DataType::Uint32, &[1]) };
    refused(decode(&tensor), "E0205");
}

#[test]
fn bools_are_zero_or_one() {
    assert_eq!(bytes_of(&raw(DataType::Bool as i32, &[4], &[0, 1, 2, 255])), [0, 1, 1, 1]);
}

#[test]
fn dimensions_are_checked_before_anything_is_allocated() {
    let float = DataType::Float as i32;
    for dims in [
        vec![-1],
        vec![2, -3],
        vec![i64::MIN],
        vec![i64::MAX],
        vec![1 << 32, 1 << 32],
        vec![0, i64::MAX, i64::MAX],
        vec![1; 65],
    ] {
        let text = refused(decode(&raw(float, &dims, &[0; 4])), "E0202");
        assert!(text.len() < 400, "{text}");
    }
    // 2 GiB claimed, 4 bytes there.
    let text = refused(decode(&raw(float, &[1 << 29], &[0; 4])), "E0203");
    assert!(text.contains("needs 2147483648 bytes, but has 4"), "{text}");
    refused(decode(&bare(DataType::Int4, &[1 << 40])), "E0203");
}

#[test]
fn a_scalar_has_one_element_and_an_empty_tensor_none() {
    let scalar = decode(&raw(DataType::Int8 as i32, &[], &[5])).expect("a scalar");
    assert_eq!((scalar.elements(), scalar.dims.len()), (1, 0));
    for tensor in [bare(DataType::Float, &[0, 3]), raw(DataType::Float as i32, &[0, 3], &[])] {
        let empty = decode(&tensor).expect("an empty tensor");
        assert_eq!((empty.elements(), empty.data.len()), (0, 0));
    }
    refused(decode(&raw(DataType::Float as i32, &[0, 3], &[0; 4])), "E0203");
}

#[test]
fn data_lies_in_one_place_and_in_the_right_one() {
    let float = |tensor| TensorProto { float_data: vec![1.0], ..tensor };
    let text = refused(decode(&float(raw(DataType::Float as i32, &[1], &[0; 4]))), "E0204");
    assert!(text.contains("float_data and in raw_data"), "{text}");
    refused(decode(&float(bare(DataType::Double, &[1]))), "E0204");
    refused(decode(&int32(DataType::Float, &[1], &[1])), "E0204");
    let text = TensorProto { string_data: vec![b"a".to_vec()], ..bare(DataType::Float, &[1]) };
    refused(decode(&text), "E0204");
    // An empty raw_data beside it is what some exporters write.
    assert_eq!(bytes_of(&float(raw(DataType::Float as i32, &[1], &[]))), [0, 0, 128, 63]);
}

#[test]
fn segments_are_refused() {
    let mut tensor = raw(DataType::Float as i32, &[1], &[0; 4]);
    tensor.segment = Some(Segment { begin: Some(0), end: Some(1) });
    refused(decode(&tensor), "E0206");
}

#[test]
fn the_diagnostic_says_where() {
    let text = refused(decode(&raw(1, &[2], &[0; 4])), "E0203");
    assert_eq!(
        text,
        "error[E0203]: a f32 tensor of dimensions [2] needs 8 bytes, but has 4\n  --> tensor \"w\"\n  \
         = why: f32 takes 32 bits an element\n  = help: export or fetch the model again: the file is damaged"
    );
    let nameless = TensorProto { raw_data: Some(Bytes::new()), ..raw(1, &[1], &[]) };
    refused(decode(&nameless), "E0203");
}
