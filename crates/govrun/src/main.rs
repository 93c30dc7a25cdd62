//! `govrun`: govern the tools of AI agents where they act.

mod agent;
mod approvals;
mod audit;
mod call;
mod cli;
mod demo;
mod doctor;
mod drill;
mod egress;
mod exit;
mod explain;
mod inspect;
mod keys;
mod offers;
mod policy;
mod recorded;
mod replay;
mod run;
mod semantics;
mod serve;
mod state;
mod text;
mod tools;
mod wait;
mod witness;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // Usage errors exit with 2 by clap itself, before anything is opened.
    let cli = cli::Cli::parse();
    match cli.run() {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("govrun: {failure}");
            failure.code().into()
        }
    }
}
