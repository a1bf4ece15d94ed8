//! The `schoolgate` binary: reads the command line and settings, starts one command, maps errors to exit codes.

mod admin;
mod cli;
mod client;
mod exit;
mod role;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, UpArgs};

/// Of the allocators measured (`tests/load`), the one with the most requests per second and the least memory per idle
/// connection.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before anything is allocated: mimalloc's arenas would get huge pages, and every untouched part of a connection's
    // buffers would be resident. Measured: an idle HTTP/2 connection takes 34.5 KiB instead of 50.1, at the same number
    // of requests per second. A kernel that refuses costs memory, nothing else.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    // What is written holds schools' data and sealed keys: for the owner and the group, not for every local user.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
    let cli = Cli::parse();
    exit::code_of(run(cli.command.unwrap_or_else(|| Command::Up(UpArgs { demo: true, ..UpArgs::default() }))))
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(args) => role::up::run(&args),
        Command::Proxy(args) => role::proxy::run(&args),
        Command::Control(args) => role::control::run(&args),
        Command::SchoolApp(args) => role::school_app::run(args),
        Command::Check(args) => admin::check::run(&args),
        Command::Snapshot(command) => admin::snapshot::run(&command),
        Command::Tenant(command) => client::run(client::tenant::run(&command)),
        Command::Domain(command) => client::run(client::domain::run(&command)),
        Command::Pool(command) => client::run(client::pool::run(&command)),
        Command::Plan(command) => client::run(client::plan::run(&command)),
        Command::Route(command) => client::run(client::route::run(&command)),
        Command::Limits(command) => client::run(client::limits::run(&command)),
        Command::Maintenance(command) => client::run(client::maintenance::run(&command)),
        Command::Operation(command) => client::run(client::operation::run(&command)),
        Command::Zone(command) => client::run(client::zone::run(&command)),
        Command::Token(command) => client::run(client::token::run(&command)),
        Command::TokenIssuer(command) => client::run(client::token_issuer::run(&command)),
        Command::Acme(command) => client::run(client::acme::run(&command)),
        Command::UnknownHosts(args) => client::run(client::unknown_hosts::run(&args)),
        Command::Certificate(command) => client::run(client::certificate::run(&command)),
        Command::Usage(args) => client::run(client::usage::run(&args)),
        Command::Keys(command) => client::run(client::keys::run(&command)),
        Command::Status(args) => client::run(client::status::run(&args)),
        Command::Explain(args) => client::run(client::explain::run(&args)),
        Command::Selftest(command) => client::run(client::selftest::run(&command)),
    }
}
