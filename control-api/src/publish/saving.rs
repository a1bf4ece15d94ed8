//! What proxies say, on its way to the store: beside the path of a report, in batches, tried again until it is there.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

use schoolgate_store::StoreError;

use super::publisher::Shared;

/// Time between two savings of what proxies said: 5 s. It is lost at most that far when the process dies, and every
/// proxy says it again.
const SAVE_NODES: Duration = Duration::from_secs(5);

/// Saves what proxies say, for ever.
pub(super) async fn keep_saving(shared: &Shared) {
    let mut every = tokio::time::interval(SAVE_NODES);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        let saved = tokio::select! {
            _ = every.tick() => save_all(shared).await,
            () = shared.nodes.appeared.notified(), if !failing => save_nodes(shared).await,
            () = shared.nodes.heard.attempted.notified(), if !failing => record_attempts(shared).await,
        };
        // After a failure only the period tries again: a stranger's requests must not make us hammer a full disk.
        failing = saved.is_err();
        if let Err(e) = saved {
            tracing::warn!("what the proxies say is not saved, and will be tried again: {e}");
        }
    }
}

/// Saves what is not saved.
pub(super) async fn save_all(shared: &Shared) -> Result<(), StoreError> {
    save_nodes(shared).await?;
    record_attempts(shared).await
}

async fn save_nodes(shared: &Shared) -> Result<(), StoreError> {
    let unsaved = shared.nodes.unsaved();
    if unsaved.is_empty() {
        return Ok(());
    }
    let records: Vec<_> = unsaved.iter().map(|node| node.record.clone()).collect();
    shared.store.save_nodes(&records).await?;
    shared.nodes.saved(&unsaved);
    Ok(())
}

async fn record_attempts(shared: &Shared) -> Result<(), StoreError> {
    let events = shared.nodes.heard.unrecorded();
    if events.is_empty() {
        return Ok(());
    }
    shared.store.record_events(&events).await?;
    shared.nodes.heard.recorded(&events);
    Ok(())
}
