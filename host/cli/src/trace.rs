//! `--trace-plugin`: tells of the calls of plugins.

use crate::{
    output::{exact, print_aside, tell},
    progress::Screen,
};
use dray_runtime::{Call, Tracer};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

/// Writes the calls of some plugins to standard error.
pub struct Trace {
    plugins: Vec<String>,
    /// Those that were called.
    called: Mutex<BTreeSet<String>>,
    screen: Screen,
}

impl Trace {
    /// `None` means that no plugin is named.
    pub fn of(plugins: &[String], screen: &Screen) -> Option<Arc<Self>> {
        let trace = || Trace { plugins: plugins.to_vec(), called: Mutex::default(), screen: screen.clone() };
        (!plugins.is_empty()).then(|| Arc::new(trace()))
    }

    /// Says of which plugins there was nothing to tell.
    pub fn end(&self) {
        let called = self.called.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for name in self.plugins.iter().filter(|name| !called.contains(*name)) {
            tell!(
                "warning: there is no trace of the plugin {name}: it was not called (`dray plugin list` shows the names)"
            );
        }
    }
}

impl Tracer for Trace {
    fn traces(&self, plugin: &str) -> bool {
        self.plugins.iter().any(|name| name == plugin)
    }

    fn called(&self, call: &Call<'_>) {
        self.called.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(call.plugin.to_owned());
        if let Ok(line) = serde_json::to_string(call) {
            self.screen.aside(|| print_aside(&format!("{}\n", exact(&line))));
        }
    }
}
