//! What the control plane wants to know of requests that this node served.
//!
//! The control plane cannot call a proxy, so the proxy waits for its questions, as it does for revisions. An operator
//! who asks for a request is answered in the time that two messages take.

use std::sync::Arc;
use std::time::Duration;

use schoolgate_config::feed::RequestAnswer;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::SnapshotFeed;
use super::backoff::Backoff;
use crate::observe::Observe;

/// Time to wait for a question before asking for one again: 25 s.
const WAIT: Duration = Duration::from_secs(25);
/// The longest pause after a control plane did not answer: 30 s. One of an older release never does.
const LONGEST: Duration = Duration::from_secs(30);

/// Answers questions until told to stop.
pub async fn run(observe: Arc<Observe>, feed: Arc<dyn SnapshotFeed>, stop: CancellationToken) {
    let mut backoff = Backoff::new(LONGEST);
    loop {
        let exchange = async {
            let wanted = feed.questions(WAIT).await?;
            if wanted.is_empty() {
                return Ok(());
            }
            let answers = wanted.into_iter().map(|request_id| {
                let request = observe.recorded(&request_id);
                RequestAnswer { request_id, request }
            });
            feed.answer(answers.collect()).await
        };
        let result = tokio::select! {
            () = stop.cancelled() => return,
            result = exchange => result,
        };
        match result {
            Ok(()) => backoff.reset(),
            Err(error) => {
                // Following the feed fails for the same reason, and says so aloud.
                debug!("no questions of the control plane: {}", super::chain(&error));
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(backoff.next(fastrand::f64())) => {}
                }
            }
        }
    }
}
