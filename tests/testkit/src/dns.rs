//! A DNS of the test's own, on loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hickory_proto::op::{Header, HeaderCounts, Message, Metadata, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CAA, CNAME, NS, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo, Server};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

/// Seconds that answers may be kept.
const TTL: u32 = 300;

/// What a name does instead of answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// SERVFAIL.
    Fails,
    /// SERVFAIL, but to who says that signatures need not be checked.
    Bogus,
    /// Nothing at all.
    Silent,
    /// As if the name were not there.
    Hidden,
}

#[derive(Debug, Default)]
struct Inner {
    records: BTreeMap<String, Vec<RData>>,
    trouble: BTreeMap<String, Trouble>,
    delegated: BTreeMap<String, SocketAddr>,
}

/// Records that a test edits while servers answer them. A clone is another handle to the same ones.
#[derive(Debug, Clone, Default)]
pub struct Records(Arc<Mutex<Inner>>);

fn plain(name: &Name) -> String {
    name.to_ascii().to_ascii_lowercase().trim_end_matches('.').to_owned()
}

fn parse(name: &str) -> Name {
    Name::from_ascii(format!("{}.", name.trim_end_matches('.'))).expect("a name")
}

impl Records {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a record, as a zone file has it: `erp.example A 192.0.2.1`, `x.example TXT some text`,
    /// `x.example CAA 0 issue ca.example`. TXT and CAA values are written without quotes.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn add(&self, line: &str) {
        let mut words = line.splitn(3, ' ');
        let (name, kind, value) = (words.next(), words.next(), words.next());
        let (name, kind, value) = (name.expect("a name"), kind.expect("a type"), value.expect("a value"));
        let data = match kind {
            "A" => RData::A(A(value.parse().expect("an address"))),
            "AAAA" => RData::AAAA(AAAA(value.parse().expect("an address"))),
            "CNAME" => RData::CNAME(CNAME(parse(value))),
            "NS" => RData::NS(NS(parse(value))),
            "TXT" => RData::TXT(TXT::from_bytes(value.as_bytes().chunks(255).collect())),
            "CAA" => RData::CAA(caa(value)),
            other => panic!("no records of type {other} here"),
        };
        self.lock().records.entry(plain(&parse(name))).or_default().push(data);
    }

    /// Begins a zone, with its SOA record and the one server that knows it.
    pub fn zone(&self, name: &str) {
        let soa = SOA::new(parse("ns.dns.test"), parse("hostmaster.dns.test"), 1, 3_600, 600, 86_400, 5);
        self.lock().records.entry(plain(&parse(name))).or_default().push(RData::SOA(soa));
        self.add(&format!("{name} NS ns.dns.test"));
    }

    /// Removes the records of a type at a name: `remove("erp.example", "A")`.
    ///
    /// # Panics
    /// When there is no such type.
    pub fn remove(&self, name: &str, kind: &str) {
        let kind: RecordType = kind.parse().expect("a type");
        let mut inner = self.lock();
        if let Some(records) = inner.records.get_mut(&plain(&parse(name))) {
            records.retain(|data| data.record_type() != kind);
        }
        inner.records.retain(|_, records| !records.is_empty());
    }

    /// Has a name make trouble from now on.
    pub fn trouble(&self, name: &str, trouble: Trouble) {
        self.lock().trouble.insert(plain(&parse(name)), trouble);
    }

    /// Ends it.
    pub fn calm(&self, name: &str) {
        self.lock().trouble.remove(&plain(&parse(name)));
    }

    /// Has another server answer for this name and all below it.
    pub fn delegate(&self, name: &str, server: SocketAddr) {
        self.lock().delegated.insert(plain(&parse(name)), server);
    }

    /// Who answers for a name instead.
    fn delegated(&self, name: &str) -> Option<SocketAddr> {
        let inner = self.lock();
        let above = |of: &&String| name == of.as_str() || name.ends_with(&format!(".{of}"));
        inner.delegated.iter().find(|(of, _)| above(of)).map(|(_, server)| *server)
    }

    fn at(&self, name: &str) -> Option<Vec<RData>> {
        self.lock().records.get(name).cloned()
    }

    fn trouble_of(&self, name: &str) -> Option<Trouble> {
        self.lock().trouble.get(name).copied()
    }

    /// Whether something is at or below a name.
    fn exists(&self, name: &str) -> bool {
        let below = format!(".{name}");
        self.lock().records.keys().any(|key| key == name || key.ends_with(&below))
    }

    /// The SOA record of the zone that a name is in.
    fn zone_of(&self, name: &str) -> Option<Record> {
        let mut at = Some(name);
        while let Some(name) = at {
            let soa = self.at(name).into_iter().flatten().find(|data| matches!(data, RData::SOA(_)));
            if let Some(soa) = soa {
                return Some(Record::from_rdata(parse(name), TTL, soa));
            }
            at = name.split_once('.').map(|(_, parent)| parent);
        }
        None
    }
}

fn caa(value: &str) -> CAA {
    let mut words = value.splitn(3, ' ');
    let flags: u8 = words.next().and_then(|flags| flags.parse().ok()).expect("flags");
    let mut caa = CAA::new_issue(flags & 128 != 0, None, Vec::new());
    caa.tag = words.next().expect("a tag").to_owned();
    caa.value = words.next().unwrap_or_default().as_bytes().to_vec();
    caa
}

/// What a server is.
#[derive(Debug, Clone)]
enum Role {
    Authoritative,
    /// Answers from these first.
    Resolver(Records),
}

struct Handler {
    records: Records,
    role: Role,
}

impl Handler {
    fn at(&self, name: &str) -> Option<Vec<RData>> {
        match &self.role {
            Role::Resolver(own) => own.at(name).or_else(|| self.records.at(name)),
            Role::Authoritative => self.records.at(name),
        }
    }

    /// Who is to be asked further, and for which name.
    fn elsewhere(&self, name: &Name, answers: &[Record]) -> Option<(Name, SocketAddr)> {
        let mut at = name.clone();
        for record in answers {
            if let RData::CNAME(alias) = &record.data {
                at = alias.0.clone();
            }
        }
        let server = self.records.delegated(&plain(&at))?;
        Some((at, server))
    }

    fn trouble_of(&self, name: &str) -> Option<Trouble> {
        match &self.role {
            Role::Resolver(own) => own.trouble_of(name).or_else(|| self.records.trouble_of(name)),
            // Signatures are looked at by resolvers only.
            Role::Authoritative => self.records.trouble_of(name).filter(|trouble| *trouble != Trouble::Bogus),
        }
    }

    /// The answer to a question; `None` for silence.
    fn answer(&self, name: &Name, kind: RecordType, unchecked: bool) -> Option<(ResponseCode, Vec<Record>)> {
        let mut answers = Vec::new();
        let mut at = name.clone();
        for _ in 0..8 {
            let text = plain(&at);
            match self.trouble_of(&text) {
                Some(Trouble::Fails) => return Some((ResponseCode::ServFail, Vec::new())),
                Some(Trouble::Bogus) if !unchecked => return Some((ResponseCode::ServFail, Vec::new())),
                Some(Trouble::Silent) => return None,
                Some(Trouble::Hidden) => return Some((ResponseCode::NXDomain, answers)),
                Some(Trouble::Bogus) | None => {}
            }
            let found = self.at(&text).unwrap_or_default();
            let matching = found.iter().filter(|data| data.record_type() == kind);
            answers.extend(matching.map(|data| Record::from_rdata(at.clone(), TTL, data.clone())));
            if !answers.is_empty() && answers.iter().any(|record| record.record_type() == kind) {
                return Some((ResponseCode::NoError, answers));
            }
            let alias = found.iter().find_map(|data| if let RData::CNAME(alias) = data { Some(alias) } else { None });
            let Some(alias) = alias else {
                let exists = self.records.exists(&text) || self.at(&text).is_some();
                return Some((if exists { ResponseCode::NoError } else { ResponseCode::NXDomain }, answers));
            };
            answers.push(Record::from_rdata(at.clone(), TTL, RData::CNAME(alias.clone())));
            if matches!(self.role, Role::Authoritative) {
                return Some((ResponseCode::NoError, answers));
            }
            at = alias.0.clone();
        }
        Some((ResponseCode::ServFail, Vec::new()))
    }
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut send: R) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let nothing = ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() });
        let info = request.request_info().expect("one question");
        let name: Name = info.query.original().name().clone();
        let unchecked = request.metadata.checking_disabled;
        let kind = info.query.query_type();
        let Some((mut code, mut answers)) = self.answer(&name, kind, unchecked) else { return nothing };
        if let (Role::Resolver(_), Some((at, server))) = (&self.role, self.elsewhere(&name, &answers)) {
            let Some((theirs, records)) = forward(server, &at, kind).await else { return nothing };
            code = theirs;
            answers.extend(records);
        }
        metadata.response_code = code;
        metadata.authoritative = matches!(self.role, Role::Authoritative);
        metadata.recursion_available = !metadata.authoritative;
        let soa = if answers.is_empty() { self.records.zone_of(&plain(&name)) } else { None };
        let builder = MessageResponseBuilder::from_message_request(request);
        let response = builder.build(metadata, &answers, soa.iter(), [], []);
        send.send_response(response).await.unwrap_or(nothing)
    }
}

/// What another server answers; `None` when it does not within two seconds.
async fn forward(server: SocketAddr, name: &Name, kind: RecordType) -> Option<(ResponseCode, Vec<Record>)> {
    let mut question = Message::query();
    question.add_query(Query::query(name.clone(), kind));
    let socket = UdpSocket::bind(("127.0.0.1", 0)).await.ok()?;
    socket.connect(server).await.ok()?;
    socket.send(&question.to_vec().ok()?).await.ok()?;
    let mut answer = [0; 4_096];
    let length = tokio::time::timeout(Duration::from_secs(2), socket.recv(&mut answer)).await.ok()?.ok()?;
    let message = Message::from_vec(&answer[..length]).ok()?;
    Some((message.metadata.response_code, message.answers))
}

/// A DNS of the test's own: one server that knows every zone, and two resolvers that ask it.
#[derive(Debug)]
pub struct Dns {
    /// What the server that knows the zones answers.
    pub records: Records,
    /// What each resolver answers instead: an old answer, a lie, a failure.
    pub instead: [Records; 2],
    authoritative: SocketAddr,
    resolvers: [SocketAddr; 2],
    servers: Vec<JoinHandle<()>>,
}

impl Dns {
    /// Starts it, with no zones but its own.
    ///
    /// # Panics
    /// When loopback cannot be listened on.
    pub async fn start() -> Self {
        let records = Records::default();
        records.zone("dns.test");
        records.add("ns.dns.test A 127.0.0.1");
        let instead = [Records::default(), Records::default()];
        let (authoritative, server) = serve(Handler { records: records.clone(), role: Role::Authoritative }).await;
        let mut servers = vec![server];
        let mut resolvers = [authoritative; 2];
        for (address, own) in resolvers.iter_mut().zip(&instead) {
            let role = Role::Resolver(own.clone());
            let (bound, server) = serve(Handler { records: records.clone(), role }).await;
            *address = bound;
            servers.push(server);
        }
        Self { records, instead, authoritative, resolvers, servers }
    }

    /// The port of the server that knows the zones; its address is 127.0.0.1.
    pub fn authoritative_port(&self) -> u16 {
        self.authoritative.port()
    }

    /// The resolvers.
    pub fn resolvers(&self) -> [SocketAddr; 2] {
        self.resolvers
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.servers.iter().for_each(JoinHandle::abort);
    }
}

async fn serve(handler: Handler) -> (SocketAddr, JoinHandle<()>) {
    let (udp, tcp) = loop {
        let tcp = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback can be listened on");
        let address = tcp.local_addr().expect("it is bound");
        // The same number may be taken for UDP.
        if let Ok(udp) = UdpSocket::bind(address).await {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().expect("it is bound");
    let mut server = Server::new(handler);
    server.register_socket(udp);
    server.register_listener(tcp, Duration::from_secs(5), 8);
    let task = tokio::spawn(async move {
        // Until aborted.
        let _ = server.block_until_done().await;
    });
    (address, task)
}
