//! Calls one function of one interface in a new instance.

/// `calling!(self, indices, scope, function, arguments…)`
macro_rules! calling {
    ($self:ident, $indices:expr, $scope:expr, $function:ident $(, $argument:expr)*) => {{
        let indices = $indices;
        let (mut store, instance) = $self.plugin.instance($scope).await?;
        let begun = std::time::Instant::now();
        let called = async { indices.load(&mut store, &instance)?.$function(&mut store $(, $argument)*).await };
        let result = called.await;
        $self.plugin.traced(stringify!($function), begun, &($(&$argument,)*), &result);
        $self.plugin.answer(stringify!($function), result)
    }};
}
pub(crate) use calling;
