//! The frames of an HTTP/2 client, counted as they are read: too many that cost us work and it nothing end the
//! connection.
//!
//! The HTTP/2 driver has bounds for some floods (resets before a stream is accepted, small DATA frames, CONTINUATION) and
//! none for the others, and hides the frames. Their headers are nine bytes each and lie plainly in the decrypted bytes
//! (RFC 9113 section 4.1), so they are counted on the way.

use std::time::Duration;

use tokio::time::Instant;

/// What every client says first (RFC 9113 section 3.4): `PRI * HTTP/2.0`, 24 bytes. The driver checks what it is.
const PREFACE: usize = 24;

/// Bytes of an answer for each of which one WINDOW_UPDATE more is borne: 1,024. Clients that keep small windows send one
/// per some kilobytes they read; those who send more only make work.
const BYTES_PER_UPDATE: u64 = 1_024;

/// Words on priorities that come with each request: 2. Browsers that send them say one or two things of each.
const PRIORITIES_PER_REQUEST: u32 = 2;

/// The time in which rates are counted: 1 s.
const SECOND: Duration = Duration::from_secs(1);

/// How many frames of a kind a client may send.
#[derive(Debug, Clone, Copy)]
pub struct FloodLimits {
    /// RST_STREAM in a second: 100. What a browser resets when its user leaves a page with a hundred images.
    pub resets_per_s: u32,
    /// Requests reset before they were answered, beyond those that were answered: 50 (CVE-2023-44487).
    pub unanswered: u32,
    /// PING in a second: 100.
    pub pings_per_s: u32,
    /// SETTINGS in a second: 50. Each has to be acknowledged.
    pub settings_per_s: u32,
    /// DATA without data that does not end its stream, in a second: 100.
    pub empty_data_per_s: u32,
    /// WINDOW_UPDATE in a second: 100, and one for each kilobyte that is sent.
    pub window_updates_per_s: u32,
    /// PRIORITY, and frames that HTTP/2 does not know, of a connection: 100, and two for each request.
    pub priorities: u32,
    /// CONTINUATION of one header block: 8, four times what the largest head that is allowed takes.
    pub continuations: u32,
}

impl Default for FloodLimits {
    fn default() -> Self {
        Self {
            resets_per_s: 100,
            unanswered: 50,
            pings_per_s: 100,
            settings_per_s: 50,
            empty_data_per_s: 100,
            window_updates_per_s: 100,
            priorities: 100,
            continuations: 8,
        }
    }
}

/// What a client sends too much of. It is told GOAWAY with `ENHANCE_YOUR_CALM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flood {
    /// RST_STREAM.
    Resets,
    /// Requests that are reset before they are answered.
    Unanswered,
    /// PING.
    Pings,
    /// SETTINGS.
    Settings,
    /// DATA without data.
    EmptyData,
    /// WINDOW_UPDATE.
    WindowUpdates,
    /// PRIORITY and unknown frames.
    Priorities,
    /// CONTINUATION.
    Continuations,
}

impl Flood {
    /// Every value, for a metric that wants all its series from the start.
    pub const ALL: [Self; 8] = [
        Self::Resets,
        Self::Unanswered,
        Self::Pings,
        Self::Settings,
        Self::EmptyData,
        Self::WindowUpdates,
        Self::Priorities,
        Self::Continuations,
    ];

    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resets => "resets",
            Self::Unanswered => "unanswered",
            Self::Pings => "pings",
            Self::Settings => "settings",
            Self::EmptyData => "empty_data",
            Self::WindowUpdates => "window_updates",
            Self::Priorities => "priorities",
            Self::Continuations => "continuations",
        }
    }
}

/// Counts the frames of one connection.
#[derive(Debug)]
pub(super) struct FrameScan {
    limits: FloodLimits,
    /// The frame header that is being read, and how much of it is here.
    header: [u8; 9],
    have: usize,
    /// Bytes to pass over: the preface, then payloads.
    skip: usize,
    /// SETTINGS were seen, so the client speaks HTTP/2.
    greeted: bool,
    second: Second,
    priorities: u32,
    requests: u32,
    continuations: u32,
    /// Bytes of the header block that is not whole yet.
    block: usize,
    /// Bytes of DATA since [`Self::take_data`].
    data: usize,
}

/// What was counted in this second.
#[derive(Debug, Default)]
struct Second {
    began: Option<Instant>,
    /// Bytes that had been sent when it began.
    sent: u64,
    resets: u32,
    pings: u32,
    settings: u32,
    empty_data: u32,
    window_updates: u32,
}

impl FrameScan {
    /// At the begin of a connection.
    pub(super) fn new(limits: FloodLimits) -> Self {
        Self {
            limits,
            header: [0; 9],
            have: 0,
            skip: PREFACE,
            greeted: false,
            second: Second::default(),
            priorities: 0,
            requests: 0,
            continuations: 0,
            block: 0,
            data: 0,
        }
    }

    /// Bytes of the header block that is not whole yet.
    pub(super) const fn block(&self) -> usize {
        self.block
    }

    /// Bytes of bodies since this was asked the last time.
    pub(super) const fn take_data(&mut self) -> usize {
        std::mem::replace(&mut self.data, 0)
    }

    /// Whether the client's SETTINGS have come.
    pub(super) const fn greeted(&self) -> bool {
        self.greeted
    }

    /// Counts the frames in the next bytes, when `sent` bytes had been sent to the client.
    pub(super) fn feed(&mut self, mut bytes: &[u8], sent: u64, now: impl Fn() -> Instant) -> Result<(), Flood> {
        loop {
            let over = self.skip.min(bytes.len());
            self.skip -= over;
            bytes = &bytes[over..];
            let take = (self.header.len() - self.have).min(bytes.len());
            self.header[self.have..self.have + take].copy_from_slice(&bytes[..take]);
            self.have += take;
            bytes = &bytes[take..];
            if self.have < self.header.len() {
                return Ok(());
            }
            self.have = 0;
            let [high, middle, low, kind, flags, ..] = self.header;
            self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            self.frame(kind, flags, sent, &now)?;
        }
    }

    /// Counts one frame, whose length is in `skip`.
    fn frame(&mut self, kind: u8, flags: u8, sent: u64, now: &impl Fn() -> Instant) -> Result<(), Flood> {
        const END_STREAM: u8 = 1;
        const END_HEADERS: u8 = 4;
        let limits = self.limits;
        match kind {
            0 => self.data = self.data.saturating_add(self.skip),
            1 | 9 if flags & END_HEADERS != 0 => self.block = 0,
            1 | 9 => self.block = self.block.saturating_add(self.skip),
            _ => {}
        }
        match kind {
            // DATA
            0 if self.skip > 0 || flags & END_STREAM != 0 => Ok(()),
            0 => {
                let second = self.second(sent, now());
                within(&mut second.empty_data, limits.empty_data_per_s, Flood::EmptyData)
            }
            // HEADERS
            1 => {
                self.requests = self.requests.saturating_add(1);
                self.continuations = 0;
                Ok(())
            }
            // RST_STREAM
            3 => within(&mut self.second(sent, now()).resets, limits.resets_per_s, Flood::Resets),
            // SETTINGS
            4 => {
                self.greeted = true;
                within(&mut self.second(sent, now()).settings, limits.settings_per_s, Flood::Settings)
            }
            // PING
            6 => within(&mut self.second(sent, now()).pings, limits.pings_per_s, Flood::Pings),
            // WINDOW_UPDATE
            8 => {
                let second = self.second(sent, now());
                let earned = u32::try_from((sent - second.sent) / BYTES_PER_UPDATE).unwrap_or(u32::MAX);
                let most = limits.window_updates_per_s.saturating_add(earned);
                within(&mut second.window_updates, most, Flood::WindowUpdates)
            }
            // CONTINUATION
            9 => within(&mut self.continuations, limits.continuations, Flood::Continuations),
            // PRIORITY, and whatever is not for us: PUSH_PROMISE and GOAWAY are the driver's to judge.
            _ => {
                let most = limits.priorities.saturating_add(self.requests.saturating_mul(PRIORITIES_PER_REQUEST));
                within(&mut self.priorities, most, Flood::Priorities)
            }
        }
    }

    fn second(&mut self, sent: u64, now: Instant) -> &mut Second {
        if self.second.began.is_none_or(|began| now.saturating_duration_since(began) >= SECOND) {
            self.second = Second { began: Some(now), sent, ..Second::default() };
        }
        &mut self.second
    }
}

fn within(count: &mut u32, most: u32, flood: Flood) -> Result<(), Flood> {
    *count = count.saturating_add(1);
    if *count > most { Err(flood) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).expect("small").to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.resize(9 + payload, 0);
        frame
    }

    /// A connection on which these frames come in one second, cut into pieces.
    fn counted(frames: &[Vec<u8>], sent: u64, step: usize) -> Result<(), Flood> {
        let mut scan = FrameScan::new(FloodLimits::default());
        let now = Instant::now();
        let bytes = [vec![0; PREFACE], frames.concat()].concat();
        bytes.chunks(step).try_for_each(|piece| scan.feed(piece, sent, || now))
    }

    #[test]
    fn each_kind_of_frame_has_its_bound_however_the_bytes_are_cut() {
        for (kind, flags, payload, most, flood) in [
            (0, 0, 0, 100, Flood::EmptyData),
            (2, 0, 5, 100, Flood::Priorities),
            (3, 0, 4, 100, Flood::Resets),
            (4, 0, 0, 50, Flood::Settings),
            (4, 1, 0, 50, Flood::Settings),
            (6, 0, 8, 100, Flood::Pings),
            (8, 0, 4, 100, Flood::WindowUpdates),
            (9, 0, 100, 8, Flood::Continuations),
            (16, 0, 7, 100, Flood::Priorities),
        ] {
            for step in [1, 7, 10_000] {
                let frames = vec![frame(kind, flags, payload); most];
                assert_eq!(counted(&frames, 0, step), Ok(()), "{flood:?} in steps of {step}");
                let frames = vec![frame(kind, flags, payload); most + 1];
                assert_eq!(counted(&frames, 0, step), Err(flood), "{flood:?} in steps of {step}");
            }
        }
    }

    #[test]
    fn requests_and_their_bodies_are_no_flood() {
        let request = [frame(1, 4, 40), frame(0, 0, 16_384), frame(0, 1, 0), frame(2, 0, 5), frame(2, 0, 5)].concat();
        assert_eq!(counted(&vec![request; 1_000], 0, 9_999), Ok(()));
    }

    #[test]
    fn who_reads_a_lot_may_say_so_often() {
        let mut scan = FrameScan::new(FloodLimits::default());
        let now = Instant::now();
        scan.feed(&[0; PREFACE], 0, || now).expect("the preface");
        let update = frame(8, 0, 4);
        for sent in 1..10_000 {
            scan.feed(&update, sent * 2_048, || now).expect("one per two kilobytes");
        }
    }

    #[test]
    fn what_is_held_of_heads_and_bodies_is_known() {
        let mut scan = FrameScan::new(FloodLimits::default());
        let mut feed = |frames: &[Vec<u8>]| {
            scan.feed(&frames.concat(), 0, Instant::now).expect("no flood");
            (scan.block(), scan.take_data())
        };
        assert_eq!(feed(&[vec![0; PREFACE], frame(1, 0, 40), frame(9, 0, 60)]), (100, 0));
        assert_eq!(feed(&[frame(9, 4, 10), frame(0, 0, 500), frame(0, 1, 1)]), (0, 501));
        assert_eq!(feed(&[]), (0, 0));
    }

    #[test]
    fn a_rate_is_counted_by_the_second() {
        let mut scan = FrameScan::new(FloodLimits::default());
        let began = Instant::now();
        scan.feed(&[0; PREFACE], 0, || began).expect("the preface");
        for second in 0..5 {
            for _ in 0..100 {
                scan.feed(&frame(6, 0, 8), 0, || began + SECOND * second).expect("a hundred in a second");
            }
        }
    }
}
