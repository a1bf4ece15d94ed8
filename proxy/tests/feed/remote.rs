//! The feed over HTTP, against a control process that is told what to answer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use schoolgate_config::feed::{FeedAnswer, NodeReport};
use schoolgate_config::model::Revision;
use schoolgate_proxy::feed::remote::{RemoteFeed, RemoteFeedError};
use schoolgate_proxy::feed::{FeedError, SnapshotFeed};
use tokio::net::TcpListener;

use crate::world::{adds, snapshot};

/// A control process that answers everything with one status and body.
struct Control {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

struct Asked {
    method: String,
    target: String,
    authorization: String,
    body: Bytes,
}

impl Control {
    async fn start(status: u16, body: impl Into<Bytes>) -> Self {
        let (asked, body) = (Arc::new(Mutex::new(Vec::new())), body.into());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (seen, body) = (Arc::clone(&seen), body.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (seen, body) = (Arc::clone(&seen), body.clone());
                    async move {
                        let (head, sent) = request.into_parts();
                        let asked = Asked {
                            method: head.method.to_string(),
                            target: head.uri.to_string(),
                            authorization: head.headers["authorization"].to_str().unwrap().to_owned(),
                            body: sent.collect().await?.to_bytes(),
                        };
                        seen.lock().unwrap().push(asked);
                        let mut answer = Response::new(Full::new(body));
                        *answer.status_mut() = status.try_into().unwrap();
                        Ok::<_, hyper::Error>(answer)
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(tcp), service));
            }
        });
        Self { url, asked }
    }
}

fn feed(control: &[&str]) -> RemoteFeed {
    let control: Vec<String> = control.iter().map(|url| (*url).to_owned()).collect();
    RemoteFeed::new("node-1".parse().unwrap(), &control, "sgn_abc_def\n").unwrap()
}

async fn ask(feed: &RemoteFeed) -> Result<FeedAnswer, FeedError> {
    feed.next(Revision(4), Duration::from_millis(1_500)).await
}

#[tokio::test]
async fn it_asks_as_agreed_and_reads_the_answer() {
    let answer = FeedAnswer::Deltas(vec![adds(5, "five.example"), adds(6, "six.example")]);
    let control = Control::start(200, answer.encode()).await;
    let feed = feed(&[&control.url]);
    assert_eq!(ask(&feed).await.unwrap(), answer);
    let report: NodeReport = serde_json::from_value(serde_json::json!({
        "node": "node-1", "serving": 4, "version": "0", "started_at_ms": 0,
        "certificates": 0, "connections": 0, "requests_in_flight": 0,
    }))
    .unwrap();
    feed.report(report.clone()).await.unwrap();
    let asked = control.asked.lock().unwrap();
    assert_eq!(asked[0].method, "GET");
    assert_eq!(asked[0].target, "/internal/v1/feed?node=node-1&after=4&wait_ms=1500");
    assert_eq!((asked[1].method.as_str(), asked[1].target.as_str()), ("POST", "/internal/v1/nodes/node-1/report"));
    assert_eq!(serde_json::from_slice::<NodeReport>(&asked[1].body).unwrap(), report);
    assert!(asked.iter().all(|asked| asked.authorization == "Bearer sgn_abc_def"));
}

#[tokio::test]
async fn an_empty_answer_is_nothing_and_a_snapshot_is_everything() {
    let nothing = Control::start(200, "").await;
    assert_eq!(ask(&feed(&[&nothing.url])).await.unwrap(), FeedAnswer::Nothing);
    let everything = FeedAnswer::Snapshot(snapshot(2));
    let control = Control::start(200, everything.encode()).await;
    assert_eq!(ask(&feed(&[&control.url])).await.unwrap(), everything);
}

#[tokio::test]
async fn the_next_control_process_is_asked_when_one_is_gone_and_remembered() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone_url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let control = Control::start(200, "").await;
    let feed = feed(&[&gone_url, &control.url]);
    assert_eq!(ask(&feed).await.unwrap(), FeedAnswer::Nothing);
    assert_eq!(ask(&feed).await.unwrap(), FeedAnswer::Nothing);
    assert_eq!(control.asked.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_refusal_names_its_reason_and_nothing_else() {
    let body = r#"{"error":"INVALID_TOKEN","message":"long\nwinded"}"#;
    let control = Control::start(401, body).await;
    let error = ask(&feed(&[&control.url])).await.unwrap_err();
    assert!(matches!(&error, FeedError::Refused { status: 401, reason, .. } if reason == "INVALID_TOKEN"), "{error:?}");
    assert!(!error.to_string().contains("sgn_"));
}

#[tokio::test]
async fn a_damaged_answer_is_told_apart_from_no_answer() {
    let mut bytes = FeedAnswer::Snapshot(snapshot(1)).encode();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let control = Control::start(200, bytes).await;
    assert!(matches!(ask(&feed(&[&control.url])).await, Err(FeedError::Malformed { .. })));
}

#[test]
fn an_address_that_cannot_be_asked_is_refused_at_the_start() {
    let node = || "node-1".parse().unwrap();
    assert!(matches!(RemoteFeed::new(node(), &[], "t"), Err(RemoteFeedError::NoControl)));
    for address in ["127.0.0.1:8600", "https://127.0.0.1:8600", "http://a/b", "", "http://"] {
        let made = RemoteFeed::new(node(), &[address.to_owned()], "t");
        assert!(matches!(made, Err(RemoteFeedError::Address(_))), "{address} was taken");
    }
    assert!(matches!(RemoteFeed::new(node(), &["http://a:1".to_owned()], "a\nb"), Err(RemoteFeedError::Token)));
}
