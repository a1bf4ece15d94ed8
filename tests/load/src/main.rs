//! `schoolgate-load`: Schoolgate beside nginx and HAProxy, measured in one run.
//!
//! The proxies have one core, everything that loads them another. Servers alternate; a figure is the median over
//! rounds, a ratio the median of the rounds' ratios, so a neighbour who takes the machine for a moment weighs on all
//! of them alike. README.md tells how each number is obtained.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command that prints what it measured")]

mod api;
mod client;
mod feed;
mod fleet;
mod machine;
mod origin;
mod picture;
mod process;
mod report;
mod run;
mod scenario;
mod server;
mod slow_origin;
mod tool;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "schoolgate-load", about = "Measures Schoolgate beside nginx and HAProxy")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the scenarios, prints the table and writes it to files.
    Run(run::Options),
    /// Loads a Schoolgate for profile-guided optimisation, and stops it so that it writes its profile.
    Train(run::TrainOptions),
    /// The backend behind all proxies.
    #[command(hide = true)]
    Origin(origin::Options),
    /// A backend with a capacity.
    #[command(hide = true)]
    SlowOrigin(slow_origin::Options),
    /// A client, in a process of its own so that it can be given a core.
    #[command(hide = true, subcommand)]
    Client(client::Command),
}

fn main() -> anyhow::Result<()> {
    process::raise_open_files()?;
    match Arguments::parse().command {
        Command::Run(options) => run::run(options),
        Command::Train(options) => run::train(&options),
        Command::Origin(options) => origin::run(&options),
        Command::SlowOrigin(options) => slow_origin::run(&options),
        Command::Client(command) => client::run(command),
    }
}
