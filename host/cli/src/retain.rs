//! `dray retain`: deletes tags that nothing keeps.

use crate::{
    args::RetainOptions, failure::Failure, plan, policy, progress::Screen, running, sandbox::confine,
    signals::Stop, sync,
};
use dray_session::Record;

/// Reads the policy, and confines the process to what it names: before any thread begins, which would not be.
pub fn load(options: &RetainOptions) -> Result<policy::Loaded, Failure> {
    let mut loaded = policy::load(&options.policies)?;
    if loaded.policy.retains.is_empty() {
        let error = dray_engine::Error::new(
            dray_engine::Kind::Invalid,
            format!("retain anything: {} has no [[retain]]", loaded.name),
        );
        return Err(Failure::Usage(
            error.help("write [[retain]] with `at`, and `keep` or `untagged`: docs/howto/order.md"),
        ));
    }
    // Its rules are nothing to this command, and what they name need not be there.
    loaded.policy.rules.clear();
    if !options.run.no_sandbox {
        confine(&loaded);
    }
    Ok(loaded)
}

pub async fn run(options: RetainOptions, loaded: policy::Loaded, screen: Screen) -> Result<u8, Failure> {
    let stop = Stop::listen(&screen);
    let _running = running::take(&loaded.paths(), (&[], None), options.run.wait, &stop).await?;
    let policy = loaded.whole_name();
    let session = loaded.open().await?;
    if !options.apply {
        session.places().only_look();
    }
    let planned = session.retention(options.limit);
    if !options.apply {
        return plan::shown(planned, options.run.output, &screen.watch_plan(session.places())).await;
    }
    let record = Record::of("retain").with_policy(&policy);
    sync::carried_out(&session, planned, record, &stop, &screen, &options.run).await
}
