//! `dray apply`: carries out a plan that was saved, and nothing else.

use crate::{
    args::ApplyOptions, failure::Failure, policy, progress::Screen, running, sandbox::confine, signals::Stop,
    sync,
};
use dray_session::{Record, SavedPlan};
use std::path::PathBuf;

/// A saved plan, and the policy that it was made from.
pub struct Ready {
    saved: SavedPlan,
    loaded: policy::Loaded,
}

/// Reads the plan and its policy, and confines the process to what the policy names: before any thread begins, which
/// would not be.
pub fn load(options: &ApplyOptions) -> Result<Ready, Failure> {
    let saved = SavedPlan::open(&options.plan).map_err(Failure::Usage)?;
    let made_from = &saved.header.policy;
    let mut loaded = policy::load(&[PathBuf::from(&made_from.path)])?;
    if loaded.id().as_ref() != Some(made_from) {
        let (plan, policy) = (options.plan.display(), &made_from.path);
        let text = format!("carry out {plan}: its policy {policy} has changed since the plan was made");
        let error = dray_engine::Error::new(dray_engine::Kind::Conflict, text);
        return Err(Failure::Usage(error.help(format!("`dray plan {policy} --out {plan}` makes a new one"))));
    }
    loaded.with_reports(&options.reports)?;
    if !options.run.no_sandbox {
        confine(&loaded);
    }
    Ok(Ready { saved, loaded })
}

pub async fn run(options: ApplyOptions, ready: Ready, screen: Screen) -> Result<u8, Failure> {
    let stop = Stop::listen(&screen);
    let _running = running::take(&ready.loaded.paths(), (&[], None), options.run.wait, &stop).await?;
    let Ready { saved, loaded } = ready;
    if saved.end.failed > 0 {
        tracing::warn!("the plan leaves out what could not be planned: {} of its tags", saved.end.failed);
    }
    let policy = saved.header.policy.path.clone();
    let session = loaded.open().await?;
    let plan = session.apply(saved);
    let record = Record::of("apply").with_policy(&policy);
    sync::carried_out(&session, plan, record, &stop, &screen, &options.run).await
}
