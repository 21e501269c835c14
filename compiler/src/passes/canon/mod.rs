//! Canonical forms: one spelling for what exporters spell in many ways.

pub mod counter;
pub mod expand;
pub mod fold;
pub mod group_norm;
pub mod identity;
pub mod norm;
pub mod norm_operand;
pub mod reduction;
pub mod reshape;
pub mod scalar;
pub mod select;
pub mod softmax;
pub mod transpose;
pub mod transpose_view;
