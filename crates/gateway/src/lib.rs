//! How agents and people reach govrun.
