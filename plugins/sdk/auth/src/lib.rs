//! Write auth providers for dray: where credentials come from.
#![allow(missing_docs)]

dray_plugin::role!("auth-provider", "dray_plugin_auth");
