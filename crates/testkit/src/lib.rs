//! Fakes and models that the tests of the other crates share. Never part of the product.

pub mod model;
