//! `dray registry info`

use crate::{
    DONE,
    args::{Output, RegistryInfoOptions},
    failure::Failure,
    output::{print_json, say},
    setup,
};
use dray_engine::registry_info;
use serde_json::json;

pub async fn run(options: RegistryInfoOptions) -> Result<u8, Failure> {
    let places = setup::places(&options.access).await?;
    let info = registry_info(&places, &options.host).await?;
    let offers = info.offers;
    if options.output == Output::Json {
        print_json(&json!({
            "registry": info.location,
            "kind": info.kind,
            "service": info.service,
            "logged_in": info.logged_in,
            "lists_digests": offers.lists,
            "prepares": offers.prepares,
            "removes_tags": offers.removes,
        }));
        return Ok(DONE);
    }
    let login = match info.logged_in {
        None => "not asked for",
        Some(true) => "taken",
        Some(false) => "refused: `dray login` stores one",
    };
    let yes = |offered: bool, yes: &'static str, no: &'static str| if offered { yes } else { no };
    say!("{}", info.location);
    say!(
        "  kind           {}",
        info.kind.as_deref().unwrap_or("none that dray knows (`kind` in the policy says one)")
    );
    say!("  login          {login}");
    if let Some(service) = &info.service {
        say!("  tokens for     {service}");
    }
    let listed = "many in one request, with their digests";
    say!("  tags           {}", yes(offers.lists, listed, "a list, and a question for each"));
    say!("  before a push  {}", yes(offers.prepares, "what is missing is made", "nothing is made"));
    let removed = "by its API, alone";
    say!("  a tag's end    {}", yes(offers.removes, removed, "as the specification says"));
    Ok(DONE)
}
