//! Questions to the proxies: what they know of a request.
//!
//! A proxy is never called. It waits for questions, as it does for revisions, and each proxy that is live is asked until
//! one has the request or all have said that they do not.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schoolgate_config::feed::RequestAnswer;
use schoolgate_config::identity::RecordedRequest;
use schoolgate_config::model::NodeId;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// Questions at once: 32. Operators ask them by hand.
const OPEN: usize = 32;

/// What came of a question.
#[derive(Debug)]
pub enum Found {
    /// A proxy kept the request.
    Request {
        /// Which proxy.
        node: NodeId,
        /// What it kept.
        request: Box<RecordedRequest>,
    },
    /// No proxy that answered has it.
    Nowhere {
        /// Live proxies that did not answer in time.
        silent: Vec<NodeId>,
    },
    /// Too many questions wait for their answer.
    Busy,
}

struct Question {
    number: u64,
    request_id: String,
    /// Who has answered that it does not have it.
    without: HashSet<NodeId>,
    found: Option<(NodeId, RecordedRequest)>,
}

#[derive(Default)]
struct Open {
    asked: u64,
    questions: Vec<Question>,
}

/// Questions that wait for their answer.
pub(super) struct Questions {
    open: Mutex<Open>,
    /// Moves with every question and answer.
    news: watch::Sender<u64>,
}

impl Default for Questions {
    fn default() -> Self {
        Self { open: Mutex::default(), news: watch::Sender::new(0) }
    }
}

impl Questions {
    fn lock(&self) -> MutexGuard<'_, Open> {
        // Every write leaves the list whole, so one that panicked has spoilt nothing.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moved(&self) {
        self.news.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Asks these proxies for a request, and waits for the answer until `deadline`.
    pub(super) async fn ask(&self, request_id: &str, nodes: Vec<NodeId>, deadline: Instant) -> Found {
        let mut news = self.news.subscribe();
        let number = {
            let mut open = self.lock();
            if open.questions.len() >= OPEN {
                return Found::Busy;
            }
            open.asked += 1;
            let number = open.asked;
            let request_id = request_id.to_owned();
            open.questions.push(Question { number, request_id, without: HashSet::new(), found: None });
            number
        };
        let _asked = Asked { questions: self, number };
        self.moved();
        loop {
            news.mark_unchanged();
            let silent: Vec<NodeId> = {
                let mut open = self.lock();
                let question = open.questions.iter_mut().find(|question| question.number == number);
                let Some(question) = question else { return Found::Nowhere { silent: nodes } };
                if let Some((node, request)) = question.found.take() {
                    return Found::Request { node, request: Box::new(request) };
                }
                nodes.iter().filter(|node| !question.without.contains(*node)).cloned().collect()
            };
            if silent.is_empty() || timeout_at(deadline, news.changed()).await.is_err() {
                return Found::Nowhere { silent };
            }
        }
    }

    /// Identifiers of requests that a proxy is asked for; waits for one at most `wait`.
    pub(super) async fn next(&self, node: &NodeId, wait: Duration) -> Vec<String> {
        let deadline = Instant::now() + wait;
        let mut news = self.news.subscribe();
        loop {
            news.mark_unchanged();
            let wanted: Vec<String> = {
                let open = self.lock();
                let wanted = open.questions.iter().filter(|q| q.found.is_none() && !q.without.contains(node));
                wanted.map(|question| question.request_id.clone()).collect()
            };
            if !wanted.is_empty() || timeout_at(deadline, news.changed()).await.is_err() {
                return wanted;
            }
        }
    }

    /// Takes what a proxy answers.
    pub(super) fn answered(&self, node: &NodeId, answers: Vec<RequestAnswer>) {
        {
            let mut open = self.lock();
            for RequestAnswer { request_id, request } in answers {
                for question in open.questions.iter_mut().filter(|question| question.request_id == request_id) {
                    match &request {
                        Some(request) => question.found = Some((node.clone(), request.clone())),
                        None => {
                            question.without.insert(node.clone());
                        }
                    }
                }
            }
        }
        self.moved();
    }
}

/// A question while somebody waits for its answer.
struct Asked<'a> {
    questions: &'a Questions,
    number: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.questions.lock().questions.retain(|question| question.number != self.number);
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    fn node(name: &str) -> NodeId {
        name.parse().expect("a name")
    }

    fn unknown(request_id: String) -> RequestAnswer {
        RequestAnswer { request_id, request: None }
    }

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_question_ends_when_every_proxy_has_said_no() {
        let questions = Questions::default();
        let (a, b) = (node("a"), node("b"));
        let answer = async |node: &NodeId| {
            let wanted = questions.next(node, SOON).await;
            questions.answered(node, wanted.into_iter().map(unknown).collect());
        };
        let ask = questions.ask("01", vec![a.clone(), b.clone()], Instant::now() + SOON);
        let (found, (), ()) = tokio::join!(ask, answer(&a), answer(&b));
        assert!(matches!(found, Found::Nowhere { silent } if silent.is_empty()));
        assert!(questions.lock().questions.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_says_nothing_is_named() {
        let questions = Questions::default();
        let found = questions.ask("01", vec![node("a")], Instant::now() + SOON).await;
        assert!(matches!(found, Found::Nowhere { silent } if silent == [node("a")]));
        assert!(questions.next(&node("a"), Duration::ZERO).await.is_empty(), "nobody waits for it any more");
    }

    #[tokio::test(start_paused = true)]
    async fn questions_have_a_bound() {
        let questions = Questions::default();
        let deadline = Instant::now() + SOON;
        let asked = (0..OPEN).map(|n| (n.to_string(), vec![node("a")])).collect::<Vec<_>>();
        let all =
            futures_util::future::join_all(asked.iter().map(|(id, nodes)| questions.ask(id, nodes.clone(), deadline)));
        let more = async { questions.ask("more", vec![node("a")], deadline).await };
        let (_, more) = tokio::join!(all, more);
        assert!(matches!(more, Found::Busy));
    }
}
