//! Ctrl-C and SIGTERM.

use crate::progress::Screen;
use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Turns true when the command is told to stop.
pub struct Stop {
    pub signal: watch::Receiver<bool>,
    code: Arc<AtomicU8>,
}

impl Stop {
    /// Listens from now on. The second signal ends the process at once, and leaves a clean screen.
    pub fn listen(screen: &Screen) -> Self {
        let screen = screen.clone();
        let (sender, receiver) = watch::channel(false);
        let code = Arc::new(AtomicU8::new(0));
        let told = code.clone();
        tokio::spawn(async move {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                // The default of both is to end the process, which is safe at any time.
                return std::future::pending().await;
            };
            loop {
                let got = tokio::select! {
                    _ = interrupt.recv() => 130,
                    _ = terminate.recv() => 143,
                };
                if told.swap(got, Ordering::Relaxed) != 0 {
                    screen.clear();
                    std::process::exit(got.into());
                }
                // A command that is not listening any more is about to end.
                let _ = sender.send(true);
            }
        });
        Stop { signal: receiver, code }
    }

    /// The exit code of the signal that came, if one did.
    pub fn code(&self) -> Option<u8> {
        Some(self.code.load(Ordering::Relaxed)).filter(|code| *code != 0)
    }
}
