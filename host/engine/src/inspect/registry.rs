//! What is known of a registry: of which kind it is, and what is done with that.

use crate::{Error, Kind, Places, Result, contract::Offers, error::Context};
use dray_core::Reference;
use std::sync::Arc;

/// What is known of a registry after one request.
#[derive(Clone, Debug)]
pub struct RegistryInfo {
    /// Its canonical name.
    pub location: String,
    /// The service for which it wants tokens. `None` means that it asked for none.
    pub service: Option<String>,
    /// The name of its dialect. `None` means that it has none, or is of no known kind.
    pub kind: Option<String>,
    /// What the dialect offers.
    pub offers: Offers,
    /// Whether it took the credentials that were found. `None` means that it did not ask for any.
    pub logged_in: Option<bool>,
}

/// Asks a registry the one question of every client, `GET /v2/`, and tells what is known of it then.
///
/// # Errors
/// Fails if the reference is of no registry, or if the registry does not answer.
pub async fn registry_info(places: &Arc<Places>, host: &str) -> Result<RegistryInfo> {
    let doing = || format!("look at the registry {host}");
    // A repository is needed for a reference; it is not asked for.
    let reference: Reference = format!("docker://{host}/a")
        .parse()
        .map_err(|_| Error::invalid("it is no host of a registry: HOST[:PORT]"))
        .context(doing)?;
    let opened = places.source(&reference, false).await.context(doing)?;
    let place = opened.place();
    let http = place.http.as_ref().ok_or_else(|| Error::invalid("it has no host")).context(doing)?;
    let logged_in = match http.log_in("").await {
        Ok(true) => Some(true),
        Ok(false) => None,
        Err(error) if matches!(error.kind, Kind::Unauthorized | Kind::Denied) => Some(false),
        Err(error) => return Err(error).context(doing),
    };
    let dialect = place.dialect().await.context(doing)?;
    Ok(RegistryInfo {
        location: place.location.clone(),
        service: http.service(),
        kind: dialect.as_ref().map(|dialect| dialect.name().to_owned()),
        offers: dialect.map(|dialect| dialect.offers()).unwrap_or_default(),
        logged_in,
    })
}
