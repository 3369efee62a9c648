//! Whether a destination would take what is planned for it, as far as its login tells.

use super::item::PlannedCopy;
use crate::Result;

impl PlannedCopy {
    /// Asks for the right to write to the destination, and writes nothing. A registry that lets everybody read, and has not
    /// asked for a login yet, is not asked.
    ///
    /// # Errors
    /// Fails if the login is refused.
    pub async fn check_login(&self) -> Result<()> {
        let Some(http) = &self.destination.place.http else { return Ok(()) };
        http.check_login(&self.destination.name).await
    }
}
