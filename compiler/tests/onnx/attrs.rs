//! Typed access to attributes.

use lapidary::onnx::Attrs;
use lapidary::onnx::proto::attribute_proto::AttributeType;
use lapidary::onnx::proto::{AttributeProto, NodeProto};

use crate::refused;

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.into()), r#type: Some(kind as i32), ..Default::default() }
}

fn node(attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        name: Some("n".into()),
        op_type: Some("Conv".into()),
        output: vec!["y".into()],
        attribute,
        ..Default::default()
    }
}

fn conv() -> NodeProto {
    node(vec![
        AttributeProto { i: Some(2), ..attribute("group", AttributeType::Int) },
        AttributeProto { ints: vec![1, 2], ..attribute("strides", AttributeType::Ints) },
        AttributeProto { f: Some(0.5), ..attribute("alpha", AttributeType::Float) },
        AttributeProto { s: Some(b"SAME_UPPER".to_vec()), ..attribute("auto_pad", AttributeType::String) },
        attribute("pads", AttributeType::Floats),
    ])
}

#[test]
fn values_defaults_and_absence() {
    let node = conv();
    let attrs = Attrs::new(&node).expect("attributes");
    assert_eq!(attrs.int("group").ok(), Some(2));
    assert_eq!(attrs.int_or("axis", -1).ok(), Some(-1));
    assert_eq!(attrs.int_opt("axis").ok(), Some(None));
    assert_eq!(attrs.ints("strides").ok(), Some(&[1, 2][..]));
    assert_eq!(attrs.float_or("alpha", 1.0).ok(), Some(0.5));
    assert_eq!(attrs.str("auto_pad").ok(), Some("SAME_UPPER"));
    assert_eq!(attrs.str_or("mode", "NOTSET").ok(), Some("NOTSET"));
    assert_eq!(attrs.flag_or("group", 0).ok(), Some(true));
    assert_eq!(attrs.flag_or("ceil_mode", 0).ok(), Some(false));
    assert!(attrs.tensor_opt("value").is_ok_and(|t| t.is_none()));
    assert!(attrs.graph_opt("body").is_ok_and(|t| t.is_none()));
    let text = refused(attrs.int("axis"), "E0301");
    assert!(text.contains("\"axis\" (INT) is missing\n  --> node \"n\" (Conv)"), "{text}");
}

#[test]
fn an_empty_list_has_no_type() {
    let node = conv();
    let attrs = Attrs::new(&node).expect("attributes");
    assert_eq!(attrs.ints("pads").ok(), Some(&[][..]));
    refused(attrs.int("pads"), "E0302");
}

#[test]
fn another_type_is_refused() {
    let node = conv();
    let attrs = Attrs::new(&node).expect("attributes");
    let text = refused(attrs.int_or("alpha", 0), "E0302");
    assert!(text.contains("\"alpha\" is FLOAT, not INT"), "{text}");
    refused(attrs.ints("group"), "E0302");
    refused(attrs.tensor("group"), "E0302");
}

#[test]
fn the_type_is_inferred_where_an_old_file_leaves_it_out() {
    let untyped = AttributeProto { name: Some("axis".into()), i: Some(3), ..Default::default() };
    let unclear = AttributeProto { name: Some("x".into()), i: Some(3), f: Some(1.0), ..Default::default() };
    let node = node(vec![untyped, unclear]);
    let attrs = Attrs::new(&node).expect("attributes");
    assert_eq!(attrs.int("axis").ok(), Some(3));
    refused(attrs.float("axis"), "E0302");
    refused(attrs.int("x"), "E0302");
}

#[test]
fn a_zero_may_be_left_out_of_the_file() {
    let node = node(vec![attribute("axis", AttributeType::Int), attribute("value", AttributeType::Tensor)]);
    let attrs = Attrs::new(&node).expect("attributes");
    assert_eq!(attrs.int_or("axis", 1).ok(), Some(0));
    refused(attrs.tensor("value"), "E0303");
}

#[test]
fn choices_are_listed() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Pad {
        Not,
        Upper,
    }
    let node = conv();
    let attrs = Attrs::new(&node).expect("attributes");
    let choices = [("NOTSET", Pad::Not), ("SAME_UPPER", Pad::Upper)];
    assert_eq!(attrs.choice_or("auto_pad", Pad::Not, &choices).ok(), Some(Pad::Upper));
    assert_eq!(attrs.choice_or("other", Pad::Not, &choices).ok(), Some(Pad::Not));
    let text = refused(attrs.choice_or("auto_pad", Pad::Not, &choices[..1]), "E0303");
    assert!(text.contains("is \"SAME_UPPER\"") && text.contains("one of \"NOTSET\""), "{text}");
    let latin = AttributeProto { s: Some(vec![0xff]), ..attribute("mode", AttributeType::String) };
    let node = self::node(vec![latin]);
    refused(Attrs::new(&node).expect("attributes").str("mode"), "E0303");
}

#[test]
fn what_nobody_asked_for_is_reported() {
    let node = conv();
    let attrs = Attrs::new(&node).expect("attributes");
    attrs.int("group").expect("an integer");
    attrs.ignore(&["alpha", "momentum"]);
    assert_eq!(attrs.unused(), ["auto_pad", "pads", "strides"]);
    let found = attrs.finish().expect_err("three are left");
    assert_eq!(found.iter().filter(|d| d.code == "E0305").count(), 3);
    for name in attrs.unused() {
        attrs.ignore(&[name]);
    }
    assert!(attrs.finish().is_ok());
}

#[test]
fn twice_and_by_reference() {
    let node = node(vec![attribute("axis", AttributeType::Int), attribute("axis", AttributeType::Int)]);
    refused(Attrs::new(&node), "E0304");
    let reference = AttributeProto { ref_attr_name: Some("outer".into()), ..attribute("axis", AttributeType::Int) };
    let node = self::node(vec![reference]);
    refused(Attrs::new(&node).expect("attributes").int("axis"), "E0306");
}
