//! Operators whose results have as many elements as the data decides. None is supported; each says what to do instead.

use super::entry::op;
use super::{Fault, Imported, OpDef};

pub const DEFS: &[OpDef] = &[
    op("NonZero", 9, (1, 1), |_| refused("compute with the mask itself (Where, Mul), whose shape is known")),
    op("NonMaxSuppression", 10, (2, 5), |_| {
        refused("end the model at the boxes and scores, and suppress outside of it")
    }),
    op("Compress", 9, (2, 2), |_| refused("keep all elements, and mask those that do not count")),
    OpDef {
        outputs: (1, 4),
        ..op("Unique", 11, (1, 1), |_| refused("end the model before it, and count outside of it"))
    },
];

fn refused(help: &str) -> Imported {
    Err(Fault::unsupported("the number of elements of the result depends on the data of a run", help))
}
