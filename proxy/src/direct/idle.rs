//! Idle: connections to backends that wait for their next request.
//!
//! Kept by (group, backend), so that one tenant's connection never carries another's request. A connection that its
//! backend closes meanwhile is found when it is taken; until then, or until its time is over, it costs a descriptor.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use schoolgate_config::model::PoolTimeouts;
use tokio::time::Instant;

use super::connection::Connection;
use crate::balance::LiveBackend;

/// Who may use a connection.
#[derive(Debug, Clone)]
pub(super) struct Key {
    group: u64,
    /// Held, so that its address is not another backend's while a connection is kept under it.
    backend: Arc<LiveBackend>,
}

impl Key {
    pub(super) fn new(group: u64, backend: &Arc<LiveBackend>) -> Self {
        Self { group, backend: Arc::clone(backend) }
    }
}
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.group == other.group && Arc::ptr_eq(&self.backend, &other.backend)
    }
}
impl Eq for Key {}
impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.group.hash(state);
        Arc::as_ptr(&self.backend).hash(state);
    }
}

struct Kept {
    number: u64,
    until: Instant,
    connection: Connection,
}

#[derive(Default)]
struct Kinds {
    by_key: HashMap<Key, Vec<Kept>, foldhash::fast::RandomState>,
    /// Oldest first. Those taken since are still named, and skipped.
    order: VecDeque<(Key, u64)>,
    kept: usize,
    next: u64,
}

/// The connections that wait, of one worker.
pub(super) struct Idle {
    /// Of one worker, so nobody waits for it; a mutex because tasks may be sent.
    kinds: Mutex<Kinds>,
    most: usize,
}

impl Idle {
    /// Keeps at most `most`; then the one that waits longest goes.
    pub(super) fn new(most: usize) -> Self {
        Self { kinds: Mutex::default(), most }
    }

    /// The connection that was used last.
    pub(super) fn take(&self, key: &Key) -> Option<Connection> {
        let mut kinds = self.lock();
        let now = Instant::now();
        loop {
            let kept = kinds.by_key.get_mut(key)?.pop()?;
            kinds.kept -= 1;
            if kept.until > now && kept.connection.is_open() {
                return Some(kept.connection);
            }
        }
    }

    /// Keeps a connection for its idle time.
    pub(super) fn put(&self, key: Key, connection: Connection, timeouts: &PoolTimeouts) {
        let now = Instant::now();
        let until = now + Duration::from_millis(timeouts.idle_ms);
        let mut kinds = self.lock();
        let number = kinds.next;
        kinds.next += 1;
        kinds.by_key.entry(key.clone()).or_default().push(Kept { number, until, connection });
        kinds.order.push_back((key, number));
        kinds.kept += 1;
        while kinds.kept > self.most {
            kinds.drop_oldest();
        }
        kinds.tidy(now, self.most);
    }

    /// Lets go of all.
    pub(super) fn clear(&self) {
        *self.lock() = Kinds::default();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kinds> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kinds {
    /// Drops the connection that the front of `order` names, if it still waits.
    fn drop_oldest(&mut self) {
        let Some((key, number)) = self.order.pop_front() else { return };
        let Entry::Occupied(mut of_key) = self.by_key.entry(key) else { return };
        let before = of_key.get().len();
        of_key.get_mut().retain(|kept| kept.number != number);
        self.kept -= before - of_key.get().len();
        if of_key.get().is_empty() {
            of_key.remove();
        }
    }

    /// Drops what is over at the front of `order`, and forgets the names of those taken when there are many.
    fn tidy(&mut self, now: Instant, most: usize) {
        while let Some((key, number)) = self.order.front() {
            let kept = self.by_key.get(key).and_then(|of_key| of_key.iter().find(|kept| kept.number == *number));
            match kept {
                Some(kept) if kept.until > now => break,
                _ => self.drop_oldest(),
            }
        }
        if self.order.len() > 2 * most.max(self.kept) {
            let waiting: std::collections::HashSet<u64> =
                self.by_key.values().flatten().map(|kept| kept.number).collect();
            self.order.retain(|(_, number)| waiting.contains(number));
        }
    }
}

#[cfg(test)]
mod tests {
    use schoolgate_config::model::{Backend, BackendId, BackendState, Weight};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::balance::Arrival;

    fn backend() -> Arc<LiveBackend> {
        let backend = Backend {
            id: BackendId::from_parts(1, 1),
            address: "http://127.0.0.1:9001".parse().expect("an address"),
            weight: Weight::new(1).expect("a weight"),
            state: BackendState::Active,
        };
        Arc::new(LiveBackend::new(&"shared".parse().expect("a name"), &backend, Arrival::First))
    }

    struct Server(TcpListener);

    impl Server {
        async fn start() -> Self {
            Self(TcpListener::bind("127.0.0.1:0").await.expect("a port"))
        }

        /// A connection and its other end.
        async fn connect(&self) -> (Connection, TcpStream) {
            let address = self.0.local_addr().expect("an address");
            let timeouts = PoolTimeouts::default();
            let address = format!("http://{address}").parse().expect("an address");
            let ours = Connection::open(&address, &timeouts);
            let (ours, theirs) = tokio::join!(ours, self.0.accept());
            (ours.map_err(|broke| broke.to_string()).expect("connected"), theirs.expect("accepted").0)
        }
    }

    #[tokio::test]
    async fn a_connection_waits_for_its_own_key_only() {
        let server = Server::start().await;
        let idle = Idle::new(10);
        let (one, other) = (backend(), backend());
        let (connection, _other_end) = server.connect().await;
        idle.put(Key::new(1, &one), connection, &PoolTimeouts::default());
        assert!(idle.take(&Key::new(2, &one)).is_none());
        assert!(idle.take(&Key::new(1, &other)).is_none());
        assert!(idle.take(&Key::new(1, &one)).is_some());
        assert!(idle.take(&Key::new(1, &one)).is_none());
    }

    #[tokio::test]
    async fn one_that_was_closed_or_spoke_unasked_is_not_given_out() {
        let server = Server::start().await;
        let idle = Idle::new(10);
        let key = Key::new(1, &backend());
        let (connection, other_end) = server.connect().await;
        drop(other_end);
        connection.readable().await;
        idle.put(key.clone(), connection, &PoolTimeouts::default());
        assert!(idle.take(&key).is_none());

        let (connection, mut other_end) = server.connect().await;
        tokio::io::AsyncWriteExt::write_all(&mut other_end, b"HTTP/1.1 200 OK\r\n\r\n").await.expect("written");
        connection.readable().await;
        idle.put(key.clone(), connection, &PoolTimeouts::default());
        assert!(idle.take(&key).is_none());
    }

    #[tokio::test]
    async fn the_oldest_goes_when_there_are_too_many() {
        let server = Server::start().await;
        let idle = Idle::new(2);
        let backend = backend();
        let mut other_ends = Vec::new();
        for group in 0..3 {
            let (connection, other_end) = server.connect().await;
            other_ends.push(other_end);
            idle.put(Key::new(group, &backend), connection, &PoolTimeouts::default());
        }
        let left: Vec<_> = (0..3).filter(|group| idle.take(&Key::new(*group, &backend)).is_some()).collect();
        assert_eq!(left, [1, 2]);
    }

    #[tokio::test]
    async fn what_is_taken_and_given_back_for_ever_leaves_no_names_behind() {
        let server = Server::start().await;
        let idle = Idle::new(4);
        let (first, second) = (Key::new(1, &backend()), Key::new(2, &backend()));
        let (stays, _first_end) = server.connect().await;
        idle.put(first, stays, &PoolTimeouts::default());
        let (mut connection, _second_end) = server.connect().await;
        for _ in 0..1_000 {
            idle.put(second.clone(), connection, &PoolTimeouts::default());
            connection = idle.take(&second).expect("kept");
        }
        assert!(idle.lock().order.len() <= 9);
    }

    #[tokio::test(start_paused = true)]
    async fn one_whose_time_is_over_is_not_given_out() {
        let server = Server::start().await;
        let idle = Idle::new(4);
        let key = Key::new(1, &backend());
        let (connection, _other_end) = server.connect().await;
        idle.put(key.clone(), connection, &PoolTimeouts { idle_ms: 1_000, ..PoolTimeouts::default() });
        tokio::time::advance(Duration::from_millis(1_001)).await;
        assert!(idle.take(&key).is_none());
    }
}
