//! The command line, `kiln`: from a source tree on this machine to artifacts on this machine, by way of a farm.
//!
//! Invariant: nothing here decides how a project is built; that is the coordinator's, so that every client has it.

pub mod scan;
