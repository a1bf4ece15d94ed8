//! HTTP/2 frames written by hand: what costs the client nothing and us work ends the connection, and only that one.

use std::time::Duration;

use schoolgate_proxy::transport::Flood;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::client::TlsStream;

use crate::client::{self, PATIENCE, config, h2_get, handshake};
use crate::site::{Site, eventually};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[length[1], length[2], length[3], kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// A header block (RFC 7541): `GET` or `POST`, `https`, a path and `a.example`.
fn block(method: u8, path: &str) -> Vec<u8> {
    let text = |index: u8, text: &str| [&[0x40 | index, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0x80 | method, 0x87], text(4, path), text(1, "a.example")].concat()
}

fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(2, path))
}

fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(3, "/gate"))
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

struct Raw(TlsStream<TcpStream>);

impl Raw {
    async fn connect(site: &Site) -> Self {
        let mut tls = handshake(site.https(), config(site.roots(), &["h2"]), "a.example").await.unwrap();
        tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        tls.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        tls.flush().await.unwrap();
        Self(tls)
    }

    async fn send(&mut self, bytes: &[u8]) {
        // The other side may have hung up already; what it said is read below.
        let _ = self.0.write_all(bytes).await;
        let _ = self.0.flush().await;
    }

    /// The kind and payload of the next frame.
    async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 9];
        timeout(PATIENCE, self.0.read_exact(&mut header)).await.expect("a frame in time").ok()?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; length as usize];
        timeout(PATIENCE, self.0.read_exact(&mut payload)).await.expect("a payload in time").ok()?;
        Some((header[3], payload))
    }

    /// The reason of the GOAWAY that ends the connection.
    async fn reason(&mut self) -> Option<u32> {
        let mut reason = None;
        while let Some((kind, payload)) = self.read().await {
            if kind == GOAWAY {
                reason = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
        reason
    }
}

#[tokio::test]
async fn too_many_frames_of_a_kind_end_their_connection_and_no_other() {
    let site = Site::start().await;
    let (mut bystander, _driver) = client::h2(site.https(), site.roots()).await;
    let increment = 1u32.to_be_bytes();
    for (before, one, count, flood) in [
        (Vec::new(), frame(PING, 0, 0, &[0; 8]), 101, Flood::Pings),
        // One has come already.
        (Vec::new(), frame(SETTINGS, 0, 0, &[]), 50, Flood::Settings),
        (post(1), frame(DATA, 0, 1, &[]), 101, Flood::EmptyData),
        (Vec::new(), frame(WINDOW_UPDATE, 0, 0, &increment), 101, Flood::WindowUpdates),
        (Vec::new(), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]), 101, Flood::Priorities),
        (Vec::new(), frame(16, 0, 0, &[0, 0, 0, 1]), 101, Flood::Priorities),
        (frame(HEADERS, 0, 1, &[]), frame(CONTINUATION, 0, 1, &[]), 9, Flood::Continuations),
    ] {
        let mut raw = Raw::connect(&site).await;
        raw.send(&[before, one.repeat(count)].concat()).await;
        assert_eq!(raw.reason().await, Some(ENHANCE_YOUR_CALM), "{flood:?}");
        assert_eq!(site.observer.floods.lock().unwrap().pop(), Some(flood));
        assert_eq!(h2_get(&mut bystander, "/hello").await.unwrap().0, 200, "beside {flood:?}");
    }
    drop((bystander, _driver));
    eventually("the connections are gone", || site.edge.connections() == 0).await;
}

#[tokio::test]
async fn a_client_that_opens_streams_and_resets_them_at_once_is_told_to_go() {
    let site = Site::start().await;
    let mut raw = Raw::connect(&site).await;
    let rapid: Vec<u8> = (0..500u32).flat_map(|n| [get(2 * n + 1, "/gate"), reset(2 * n + 1)].concat()).collect();
    raw.send(&rapid).await;
    assert_eq!(raw.reason().await, Some(ENHANCE_YOUR_CALM));
    eventually("its streams are gone", || site.edge.connections() == 0).await;
}

#[tokio::test]
async fn a_client_that_waits_between_its_resets_is_told_to_go_all_the_same() {
    let site = Site::start().await;
    let mut raw = Raw::connect(&site).await;
    for n in 0..51u32 {
        raw.send(&get(2 * n + 1, "/gate")).await;
        site.origin.waiting.acquire().await.unwrap().forget();
        raw.send(&reset(2 * n + 1)).await;
        eventually("the reset is noticed", || *site.observer.unanswered.lock().unwrap() > n).await;
    }
    raw.send(&frame(PING, 0, 0, &[0; 8])).await;
    assert_eq!(raw.reason().await, Some(ENHANCE_YOUR_CALM));
    assert_eq!(*site.observer.floods.lock().unwrap(), [Flood::Unanswered]);
}

#[tokio::test]
async fn answered_requests_make_up_for_resets() {
    let site = Site::start().await;
    let mut raw = Raw::connect(&site).await;
    for n in 0..60u32 {
        raw.send(&[get(4 * n + 1, "/gate"), get(4 * n + 3, "/conn")].concat()).await;
        site.origin.waiting.acquire().await.unwrap().forget();
        while raw.read().await.expect("the connection lives").0 != DATA {}
        raw.send(&reset(4 * n + 1)).await;
        eventually("the reset is noticed", || *site.observer.unanswered.lock().unwrap() > n).await;
    }
    assert!(site.observer.floods.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_client_that_never_says_its_settings_is_cut() {
    let site = Site::with(|limits| limits.head = Duration::from_millis(200)).await;
    let mut tls = handshake(site.https(), config(site.roots(), &["h2"]), "a.example").await.unwrap();
    tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    tls.flush().await.unwrap();
    eventually("it is gone", || site.edge.connections() == 0).await;
    let mut polite = Raw::connect(&site).await;
    sleep(Duration::from_millis(400)).await;
    polite.send(&get(1, "/conn")).await;
    while polite.read().await.expect("the connection lives").0 != HEADERS {}
}

#[tokio::test]
async fn malformed_requests_are_not_answered() {
    let site = Site::start().await;
    let literal = |name: &str, value: &str| {
        let length = |text: &str| u8::try_from(text.len()).unwrap();
        [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
    };
    let ordinary = block(2, "/hello");
    let bad = [
        [ordinary.clone(), literal("connection", "close")].concat(),
        [ordinary.clone(), literal("transfer-encoding", "chunked")].concat(),
        [ordinary.clone(), literal("upgrade", "websocket")].concat(),
        [ordinary.clone(), literal("te", "gzip")].concat(),
        [ordinary.clone(), literal("X-Upper", "a")].concat(),
        [ordinary.clone(), literal(":path", "/late")].concat(),
        [ordinary.clone(), vec![0x84]].concat(),
        [ordinary.clone(), literal(":unknown", "a")].concat(),
        [ordinary.clone(), literal("content-length", "5")].concat(),
    ];
    for block in &bad {
        let mut raw = Raw::connect(&site).await;
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, block)).await;
        let refused = loop {
            let (kind, payload) = raw.read().await.expect("a reset or a word on the connection");
            assert_ne!(kind, HEADERS, "{} was answered", String::from_utf8_lossy(block));
            match kind {
                RST_STREAM => break payload,
                GOAWAY => break payload[4..8].to_vec(),
                _ => {}
            }
        };
        assert_eq!(refused, 1u32.to_be_bytes(), "PROTOCOL_ERROR");
    }
}
