//! Write transports for dray: kinds of place from which images are read and to which they are written.
#![allow(missing_docs)]

dray_plugin::role!("transport", "dray_plugin_transport");
