//! Write auth providers for dray, which provide credentials.
#![allow(missing_docs)]

dray_plugin::role!("auth-provider", "dray_plugin_auth");
