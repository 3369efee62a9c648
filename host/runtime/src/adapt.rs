//! Calls one function of one interface in a new instance.

use crate::state::State;

/// `calling!(self, indices, scope, function, arguments…)`
macro_rules! calling {
    ($self:ident, $indices:expr, $scope:expr, $function:ident $(, $argument:expr)*) => {{
        let indices = $indices;
        let (mut store, instance) = $self.plugin.instance($scope).await?;
        let begun = std::time::Instant::now();
        let called = async { indices.load(&mut store, &instance)?.$function(&mut store $(, $argument)*).await };
        let result = called.await.map_err(|trap| $crate::adapt::explained(trap, store.data()));
        $self.plugin.traced(stringify!($function), begun, &($(&$argument,)*), &result, store.data_mut());
        $self.plugin.answer(stringify!($function), result)
    }};
}
pub(crate) use calling;

/// A trap, with what the plugin logged as an error before it: the message of a panic, as a rule.
pub(crate) fn explained(trap: wasmtime::Error, state: &State) -> wasmtime::Error {
    match &state.complaint {
        // Running out of time or memory says enough, and is recognised later.
        Some(complaint) if trap.is::<wasmtime::Trap>() => {
            wasmtime::Error::msg(format!("{complaint} ({})", trap.root_cause()))
        }
        _ => trap,
    }
}
