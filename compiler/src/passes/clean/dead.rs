//! Dead code.
//!
//! Does: remove nodes whose results nothing uses. Needs: nothing. Keeps: every output. Breaks: nothing.

use crate::ir::Graph;

/// Removes dead nodes and says how many.
pub fn run(graph: &mut Graph) -> usize {
    graph.remove_dead()
}
