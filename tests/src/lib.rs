//! The test package: everything of interest is in `tests/`.
