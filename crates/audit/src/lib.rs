//! Not empty for long.
