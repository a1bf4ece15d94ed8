//! Our own authoritative server, asked over real sockets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use schoolgate_config::model::DomainName;
use schoolgate_dns::ask::{Asking, ask};
use schoolgate_dns::{Responder, ResponderOptions, TxtSource, Unavailable};

#[derive(Default)]
struct Source(Mutex<HashMap<String, Vec<String>>>);

#[async_trait]
impl TxtSource for Source {
    fn zones(&self) -> Vec<DomainName> {
        vec!["schools.test".parse().expect("a name")]
    }

    async fn values_of(&self, name: &str) -> Result<Vec<String>, Unavailable> {
        if name.starts_with("broken.") {
            return Err(Unavailable("it is closed".to_owned()));
        }
        Ok(self.0.lock().expect("whole").get(name).cloned().unwrap_or_default())
    }
}

struct World {
    responder: Responder,
    source: Arc<Source>,
}

impl World {
    async fn new() -> Self {
        let source = Arc::new(Source::default());
        let options = ResponderOptions { listen: ([127, 0, 0, 1], 0).into(), name: None };
        let responder = Responder::start(options, source.clone()).await.expect("it listens");
        Self { responder, source }
    }

    fn publish(&self, name: &str, values: &[&str]) {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        self.source.0.lock().expect("whole").insert(name.to_owned(), values);
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        let name = Name::from_ascii(name).expect("a name");
        ask(self.responder.address(), &name, kind, Asking::Resolver).await.expect("an answer")
    }
}

fn texts(message: &Message) -> Vec<String> {
    let texts = message.answers.iter().filter_map(|record| match &record.data {
        RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
        _ => None,
    });
    texts.collect()
}

#[tokio::test]
async fn published_values_are_answered_with_authority_in_any_case() {
    let world = World::new().await;
    world.publish("tok.acme.schools.test", &["one", "two"]);
    world.publish("_acme-challenge.schools.test", &["three"]);
    let answer = world.ask("ToK.acme.Schools.test.", RecordType::TXT).await;
    assert_eq!(texts(&answer), ["one", "two"]);
    assert!(answer.metadata.authoritative && !answer.metadata.recursion_available);
    assert_eq!(texts(&world.ask("_acme-challenge.schools.test.", RecordType::TXT).await), ["three"]);
}

#[tokio::test]
async fn a_name_without_values_is_not_there_and_one_with_them_has_no_other_records() {
    let world = World::new().await;
    let absent = world.ask("tok.acme.schools.test.", RecordType::TXT).await;
    assert_eq!((absent.metadata.response_code, absent.answers.len()), (ResponseCode::NXDomain, 0));
    assert!(absent.authorities.iter().any(|r| matches!(r.data, RData::SOA(_)) && r.ttl <= 5), "{absent:?}");
    world.publish("tok.acme.schools.test", &["one"]);
    let other = world.ask("tok.acme.schools.test.", RecordType::A).await;
    assert_eq!((other.metadata.response_code, other.answers.len()), (ResponseCode::NoError, 0));
    assert_eq!(other.authorities.len(), 1);
    let deeper = world.ask("a.tok.acme.schools.test.", RecordType::TXT).await;
    assert_eq!(deeper.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn what_is_delegated_begins_with_soa_and_ns() {
    let world = World::new().await;
    for apex in ["acme.schools.test.", "_acme-challenge.schools.test."] {
        let soa = world.ask(apex, RecordType::SOA).await;
        assert!(matches!(soa.answers[0].data, RData::SOA(_)), "{soa:?}");
        let ns = world.ask(apex, RecordType::NS).await;
        assert!(matches!(&ns.answers[0].data, RData::NS(ns) if ns.0.to_ascii() == "ns.schools.test."), "{ns:?}");
        let none = world.ask(apex, RecordType::A).await;
        assert_eq!((none.metadata.response_code, none.authorities.len()), (ResponseCode::NoError, 1));
    }
}

#[tokio::test]
async fn everything_else_is_refused() {
    let world = World::new().await;
    for name in ["schools.test.", "www.schools.test.", "example.com.", "acme.schools.test.evil.example.", "."] {
        let refused = world.ask(name, RecordType::TXT).await;
        assert_eq!(refused.metadata.response_code, ResponseCode::Refused, "{name}");
        assert!(!refused.metadata.authoritative && refused.answers.is_empty());
    }
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_a_failure_and_not_an_absence() {
    let world = World::new().await;
    let failed = world.ask("broken.acme.schools.test.", RecordType::TXT).await;
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn an_answer_too_long_for_a_datagram_comes_over_tcp() {
    let world = World::new().await;
    let values: Vec<String> = (0..40).map(|n| format!("{n:0>43}")).collect();
    world.publish("tok.acme.schools.test", &values.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(texts(&world.ask("tok.acme.schools.test.", RecordType::TXT).await).len(), 40);
}
