//! Log messages, for people and machines.

use crate::{
    args::{Global, LogFormat},
    output::{LINE, colours},
    progress::{PROGRESS, Screen},
};
use dray_core::harmless;
use tracing_subscriber::{EnvFilter, field::MakeExt, fmt};

/// A text as it was before `{:?}` quoted it.
fn unquoted(value: &str) -> String {
    let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    inner.map_or(value.to_owned(), |inner| inner.replace("\\\"", "\""))
}

/// Sends log messages to standard error, past the progress bar.
pub fn begin(global: &Global, screen: &Screen) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => {
            "warn,dray=info,dray_core=info,dray_engine=info,dray_runtime=info,dray_registry=info,dray_session=info"
        }
        (false, 2) => {
            "warn,dray=debug,dray_core=debug,dray_engine=debug,dray_runtime=debug,dray_registry=debug,dray_session=debug"
        }
        (false, _) => {
            "info,dray=trace,dray_core=trace,dray_engine=trace,dray_runtime=trace,dray_registry=trace,dray_session=trace"
        }
    };
    // What people read as lines of progress, machines read as events.
    let level = if global.quiet { level.to_owned() } else { format!("{level},{PROGRESS}=info") };
    let base = fmt().with_env_filter(EnvFilter::new(level)).with_writer(screen.clone()).with_target(false);
    let base = base.log_internal_errors(false);
    // Messages and fields hold names and texts of strangers.
    let fields = fmt::format::debug_fn(|writer, field, value| {
        let value = harmless(&format!("{value:?}"), LINE);
        match field.name() {
            "message" => write!(writer, "{value}"),
            "help" => write!(writer, "\n  help: {}", unquoted(&value)),
            name => write!(writer, "{name}={value}"),
        }
    });
    match global.log_format {
        LogFormat::Text => base.fmt_fields(fields.delimited(" ")).with_ansi(colours()).without_time().init(),
        LogFormat::Json => base.json().init(),
    }
}
