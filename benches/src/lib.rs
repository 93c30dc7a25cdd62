//! The benchmark package: everything of interest is in `benches/`.
