use std::collections::BTreeSet;

use lapidary_runtime::DType;

use super::*;
use crate::ir::{Expr, Op, Range, Symbol, SymbolSource, Type};

/// One node of each operation, and each way to write a constant, a symbol, a result.
const EVERY_OP: &str = include_str!("every_op.txt");

/// Zeros for every name, as many as the blob has.
fn zeros(_: &str) -> Option<Bytes> {
    Some(Bytes::from(vec![0; 260]))
}

fn message(text: &str) -> String {
    parse(text, &|_| None).err().unwrap_or_else(|| "it is read".to_owned())
}

#[test]
fn the_text_is_read_and_printed_again() {
    assert_eq!(print(&parse(EVERY_OP, &zeros).unwrap()), EVERY_OP);
}

#[test]
fn what_is_printed_with_its_constants_is_the_same_graph() {
    let graph = parse(EVERY_OP, &zeros).unwrap();
    let constants = named_constants(&graph);
    assert_eq!(constants.len(), 3);
    let again = parse(&print(&graph), &|name| constants.get(name).cloned()).unwrap();
    assert_eq!(print(&again), print(&graph));
    assert_eq!(again.constraints, graph.constraints);
    assert_eq!(again.symbols, graph.symbols);
    for (a, b) in again.order().into_iter().zip(graph.order()) {
        let (a, b) = (again.node(a), graph.node(b));
        assert_eq!(format!("{a:?}"), format!("{b:?}"));
    }
}

#[test]
fn the_text_has_every_operation() {
    let graph = parse(EVERY_OP, &zeros).unwrap();
    let found: BTreeSet<&str> = graph.order().into_iter().map(|id| graph.node(id).op.name()).collect();
    let all: BTreeSet<&str> = fields::blanks().iter().map(Op::name).collect();
    assert_eq!(found, all);
    assert_eq!(all.len(), 34);
}

#[test]
fn values_are_numbered_in_the_order_of_the_text() {
    let text = r#"graph "g" { # values in any order
        const %7 "unused" f32[] = hex 00000000
        input %40 "x" f32[2]
        const %9 "c" f32[] = hex 00000000
        %2 "y" f32[2] = pointwise(%40, %9) { in f32 f32; out in1 }
        output "y" %2 }"#;
    let expected = r#"graph "g" {
  input %0 "x" f32[2]
  const %1 "c" f32[] = hex 00000000
  %2 "y" f32[2] = pointwise(%0, %1) { in f32 f32; out in1 }
  output "y" %2
}
"#;
    assert_eq!(print(&parse(text, &zeros).unwrap()), expected);
}

#[test]
fn errors_name_the_line() {
    let line = |line: &str| message(&format!("graph \"g\" {{\n  input %0 \"x\" f32[2]\n  {line}\n}}"));
    assert_eq!(message(""), "line 1: expected `graph`");
    assert_eq!(message("graph \"g\" {"), "line 1: expected a line of a graph");
    assert_eq!(message("graph \"g\" { } }"), "line 1: expected the end of the text before `}`");
    assert_eq!(line("output \"y\" %1"), "line 3: %1 is not defined above");
    assert_eq!(line("input %0 \"x\" f32[]"), "line 3: %0 is defined twice");
    assert_eq!(line("input %1 \"x\" f33[]"), "line 3: expected an element type before `f33[]`");
    assert_eq!(line("input %1 \"x"), "line 3: the string has no end on its line");
    assert_eq!(line("input %1 \"\\q\" f32[]"), "line 3: expected an escape before `\\q\" f32[]`");
    assert_eq!(line("input %1 \"x\" f32[1, a +]"), "line 3: expected a formula, found None");
    assert_eq!(
        line("input %1 \"x\" f32[1, 1, 1, 1, 1, 1, 1, 1, 1]"),
        "line 3: the type has rank 9, and the largest is 8"
    );
    assert_eq!(line("const %1 \"c\" f32[] = hex 000"), "line 3: the number of hexadecimal digits is odd");
    assert_eq!(line("const %1 \"c\" f32[] = init \"w\""), "line 3: nobody knows the bytes of \"w\"");
    assert_eq!(line("%1 \"y\" f32[] = sofmax(%0)"), "line 3: expected an operation before `sofmax(%0)`");
    assert_eq!(line("%1 \"y\" f32[] = softmax(%0)"), "line 4: expected `axis` before `}`");
    assert_eq!(line("%1 \"y\" f32[] = softmax(%0) { axis 300 }"), "line 3: 300 is too large here");
    assert_eq!(line("%1 \"y\" f32[] = transpose(%0) { perm [1, 0 }"), "line 3: expected `]` before `}`");
    let program = |text: &str| line(&format!("%1 \"y\" f32[] = pointwise(%0) {{ {text} }}"));
    assert_eq!(program("in f32; s0 = add f32 in0 s0; out s0"), "line 3: the program has no `s0` here");
    assert_eq!(program("in f32; s1 = abs f32 in0; out s1"), "line 3: expected `s0` before `s1 = abs f32 in0; out s1`");
    assert_eq!(program("in f32; s0 = add f32 in0 1.5i64; out s0"), "line 3: `1.5i64` is not an operand of the program");
    let conv = |text: &str| line(&format!("%1 \"y\" f32[] = conv(%0, %0) {{ {text} }}"));
    assert_eq!(conv("window 3x3 stride 1"), "line 3: there are 1 numbers for 2 spatial axes");
    assert_eq!(conv("window 3x3x3x3"), "line 3: `3x3x3x3` has more than 3 axes");
    assert_eq!(line("symbol n = count %9 of (4), 0..1..4"), "line 4: the symbol `n`: %9 is not defined above");
}

#[test]
fn deep_nesting_is_refused() {
    let open = "graph \"g\" { input %0 \"c\" bool[] = if(%0) { then ".replace("graph \"g\" {", "");
    let region = format!("\"r\" {{ {}", open.replace(" = if", "\n%1 \"y\" bool[] = if"));
    let text = format!("graph {}", region.repeat(100_000));
    assert_eq!(message(&text), "line 34: regions are nested deeper than 32");
}

/// A text cut short is refused; one with a byte changed is read or refused.
#[test]
fn damaged_texts_do_not_panic() {
    for end in (0..EVERY_OP.len()).step_by(13).filter(|&end| EVERY_OP.is_char_boundary(end)) {
        assert!(parse(&EVERY_OP[..end], &zeros).is_err());
    }
    let marks = b"{}()[]\"%,;=#`-x0 \n";
    for (k, at) in (0..EVERY_OP.len()).step_by(5).enumerate() {
        let mut bytes = EVERY_OP.as_bytes().to_vec();
        bytes[at] = marks[k % marks.len()];
        if let Ok(text) = String::from_utf8(bytes)
            && let Ok(graph) = parse(&text, &zeros)
        {
            assert_eq!(print(&parse(&print(&graph), &zeros).unwrap()), print(&graph));
        }
    }
}

#[test]
fn a_symbol_may_have_any_name() {
    for name in ["a`b", "a\nb", "", "`", "a\\", "floor(a, 2)", "# no comment", "\u{2028}", "é"] {
        let mut graph = Graph::new("named");
        let symbol = Symbol {
            source: SymbolSource::Input { input: 0, axis: 0 },
            ranges: vec![Range { min: 1, opt: 2, max: 3 }],
        };
        graph.symbols.insert(name.into(), symbol);
        let x = graph.add_input("x", Type { dtype: DType::F32, dims: vec![Expr::symbol(name)] });
        graph.add_output("y", x);
        let text = print(&graph);
        let again = parse(&text, &|_| None).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(again.symbols, graph.symbols, "{text}");
        assert_eq!((print(&again), text.lines().count()), (text, 5));
    }
}
