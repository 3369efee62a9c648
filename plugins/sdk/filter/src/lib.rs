//! Write tag filters for dray: which tags are wanted.
#![allow(missing_docs)]

dray_plugin::role!("filter", "dray_plugin_filter");
