//! `dray`: copies and syncs container images. The only crate that prints, reads the environment
//! and exits.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

mod apply;
mod args;
mod cache;
mod check;
mod completions;
mod copy;
mod delete;
mod diff;
mod digest;
mod failure;
mod failures;
mod help;
mod inspect;
mod local;
mod lock;
mod lock_file;
mod log;
mod login;
mod login_file;
mod mask;
mod migrate;
mod output;
mod plan;
mod plan_checks;
mod plan_view;
mod plugin;
mod policy;
mod progress;
mod progress_events;
mod progress_view;
mod registry_info;
mod retain;
mod running;
mod runs;
mod sandbox;
mod secrets;
mod serve;
mod setup;
mod signals;
mod signer;
mod skopeo;
mod sync;
mod terminal;
mod trace;
mod trust;
mod undo;

use args::{Arguments, Command, PluginCommand, RegistryCommand};
use clap::FromArgMatches;
use failure::Failure;
use output::tell;
use std::{pin::Pin, process::ExitCode};

/// A plan of a million tags takes a sixth less time with it than with glibc's, and musl's is slower by far.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Everything was done.
const DONE: u8 = 0;
/// Something failed.
const FAILED: u8 = 1;
/// The command line or the policy is wrong.
const WRONG: u8 = 2;
/// `plan --detailed-exitcode`: changes are due.
const DUE: u8 = 3;

fn main() -> ExitCode {
    completions::answer();
    if let Some(arguments) = skopeo::arguments() {
        return skopeo::main(arguments);
    }
    let matches = help::command().get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match &arguments.command {
        Command::Man { out } => {
            // It makes a page for each command, named after it.
            return match std::fs::create_dir_all(out)
                .and_then(|()| clap_mangen::generate_to(help::command(), out))
            {
                Ok(()) => ended(DONE),
                Err(error) => {
                    tell!("error: failed to write man pages to {}: {error}", out.display());
                    ExitCode::from(FAILED)
                }
            };
        }
        Command::Completions { shell } => {
            return match completions::script(&shell.to_string()) {
                Ok(script) => {
                    output::print(&script);
                    ended(DONE)
                }
                Err(error) => {
                    tell!("error: failed to write the script of {shell}: {error}");
                    ExitCode::from(FAILED)
                }
            };
        }
        Command::Schema => {
            output::print(dray_core::policy::schema());
            return ended(DONE);
        }
        _ => {}
    }
    let screen = progress::Screen::new(&arguments.global);
    log::begin(&arguments.global, &screen);
    let work = match work(arguments, screen) {
        Ok(work) => work,
        Err(failure) => {
            failure.print();
            return ended(failure.code());
        }
    };
    // The kernel, and registries on the same machine, want processors too; and threads that wait for each
    // other's work cost more than they bring.
    match carried_out(work) {
        Ok(code) => ended(code),
        Err(failure) => {
            failure.print();
            ended(failure.code())
        }
    }
}

/// Runs the work of a command to its end.
fn carried_out(work: Work) -> Result<u8, Failure> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut builder = match processors.div_ceil(2) {
        1 => tokio::runtime::Builder::new_current_thread(),
        workers => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(workers);
            builder
        }
    };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return Err(Failure::usage(format!("start: {error}")));
        }
    };
    // On a worker, where what it waits for happens too: this thread would have to be woken each time.
    let running = runtime.spawn(work);
    let code = match runtime.block_on(running) {
        Ok(done) => done,
        Err(broken) => match broken.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Ok(FAILED),
        },
    };
    // What was dropped half-way may still wait for a slow host: nobody waits for it.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    code
}

/// What was not printed was not done.
fn ended(code: u8) -> ExitCode {
    ExitCode::from(if code == DONE && output::is_lost() { FAILED } else { code })
}

/// What a command does, to its exit code.
type Work = Pin<Box<dyn Future<Output = Result<u8, Failure>> + Send>>;

/// The work of a command. A sync reads its policy here, and confines the process before any thread begins.
fn work(arguments: Arguments, screen: progress::Screen) -> Result<Work, Failure> {
    Ok(match arguments.command {
        Command::Sync(options) => {
            let loaded = sync::load(&options)?;
            Box::pin(sync::run(options, loaded, screen))
        }
        Command::Apply(options) => {
            let ready = apply::load(&options)?;
            Box::pin(apply::run(options, ready, screen))
        }
        Command::Retain(options) => {
            let loaded = retain::load(&options)?;
            Box::pin(retain::run(options, loaded, screen))
        }
        Command::Plan(options) => Box::pin(plan::run(options, screen)),
        Command::Check(options) => Box::pin(async move { check::run(&options).await }),
        Command::Lock(options) => Box::pin(lock::run(options)),
        Command::Copy(options) => Box::pin(copy::run(options, screen)),
        Command::Tag(options) => Box::pin(copy::tag(options, screen)),
        Command::Delete(options) => Box::pin(delete::run(options)),
        Command::Migrate(options) => Box::pin(async move { migrate::run(&options) }),
        Command::Sign(options) => Box::pin(trust::sign(options)),
        Command::Verify(options) => Box::pin(trust::verify_image(options)),
        Command::Login(options) => Box::pin(login::login(options)),
        Command::Logout(options) => Box::pin(async move { login::logout(&options) }),
        Command::Digest(options) => Box::pin(async move { digest::run(&options) }),
        Command::Diff(options) => Box::pin(diff::run(options)),
        Command::Ls(options) => Box::pin(inspect::ls(options)),
        Command::Inspect(options) => Box::pin(inspect::run(options)),
        Command::ListTags(options) => Box::pin(inspect::list_tags(options)),
        Command::Runs(options) => Box::pin(runs::run(options, screen)),
        Command::Cache(options) => Box::pin(async move { cache::run(&options) }),
        Command::Plugin { command: PluginCommand::List(options) } => Box::pin(plugin::list(options)),
        Command::Plugin { command: PluginCommand::Inspect(options) } => Box::pin(plugin::inspect(options)),
        Command::Plugin { command: PluginCommand::New(options) } => {
            Box::pin(async move { plugin::create(&options) })
        }
        Command::Plugin { command: PluginCommand::Build(options) } => {
            Box::pin(async move { plugin::build(&options) })
        }
        Command::Plugin { command: PluginCommand::Vendor(options) } => {
            Box::pin(async move { plugin::vendor(&options) })
        }
        Command::Plugin { command: PluginCommand::Test(options) } => Box::pin(plugin::test(options)),
        Command::Plugin { command: PluginCommand::Check(options) } => Box::pin(plugin::check(options)),
        Command::Plugin { command: PluginCommand::Push(options) } => Box::pin(plugin::push(options, screen)),
        Command::Plugin { command: PluginCommand::Install(options) } => {
            Box::pin(plugin::install(options, screen))
        }
        Command::Plugin { command: PluginCommand::Update(options) } => {
            Box::pin(plugin::update(options, screen))
        }
        Command::Plugin { command: PluginCommand::Remove(options) } => {
            Box::pin(async move { plugin::remove(&options) })
        }
        Command::Plugin { command: PluginCommand::Keygen(options) } => {
            Box::pin(async move { plugin::keygen(&options) })
        }
        Command::Plugin { command: PluginCommand::Sign(options) } => Box::pin(plugin::sign(options)),
        Command::Plugin { command: PluginCommand::Verify(options) } => Box::pin(plugin::verify(options)),
        Command::Registry { command: RegistryCommand::Info(options) } => {
            Box::pin(registry_info::run(options))
        }
        Command::Registry { command: RegistryCommand::Serve(options) } => {
            Box::pin(serve::run(options, screen))
        }
        // Done before anything was started.
        Command::Completions { .. } | Command::Man { .. } | Command::Schema | Command::Skopeo { .. } => {
            Box::pin(async { Ok(DONE) })
        }
    })
}
