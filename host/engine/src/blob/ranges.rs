//! Reads a segment over several connections at once, in pieces, and gives its bytes in their order.

use crate::{
    Error, Kind, Result,
    contract::Request,
    http::{Brought, Climb, Download, Line, MEASURED, Next, PlaceHttp, Reader, SETTLING},
    place::Place,
};
use bytes::{Bytes, BytesMut};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::JoinHandle};

/// Bytes of all pieces that may be in memory.
const MEMORY: u64 = 48 << 20;
/// Pieces beyond one for each line, which wait for those before them.
const AHEAD: usize = 2;
/// A blob of fewer bytes is read over one connection.
pub(super) const LARGE: u64 = 64 << 20;
/// If reading over one connection ends so soon, more of them do not pay.
const SOON: f64 = 2.0;
/// How often the rest of a piece is requested again after it broke off, and the pause before.
const TIMES: usize = 3;
const PAUSE: Duration = Duration::from_millis(200);
/// So many bytes count as progress. An answer with fewer of them counts as a failure.
const MEANT: u64 = 64 << 10;
/// So many bytes are given on at once.
const GATHERED: usize = 64 << 10;
/// After so long, the rest of the first piece is requested again if all others have come meanwhile, and how often.
const SLOW: Duration = Duration::from_secs(3);
const HURRIED: u32 = 2;

/// Measures one connection, to find out whether more would bring more.
#[derive(Default)]
pub(super) struct Gauge {
    /// When the first chunk came.
    begun: Option<Instant>,
    brought: Brought,
    /// Set when enough was measured.
    is_done: bool,
}

impl Gauge {
    /// Records a chunk for which reading waited. Returns what the connection brings when enough was measured, once.
    pub fn takes(&mut self, bytes: usize, waited: Duration) -> Option<Brought> {
        let Some(begun) = self.begun else {
            // The time before it was that of the request.
            self.begun = Some(Instant::now());
            return None;
        };
        if self.is_done {
            return None;
        }
        self.brought.bytes += bytes as u64;
        self.brought.waited += waited;
        self.brought.elapsed = begun.elapsed();
        self.is_done = self.brought.elapsed >= MEASURED;
        self.is_done.then_some(self.brought)
    }
}

/// Whether more connections may bring more: the source is what is waited for, and enough is left.
pub(super) fn may_pay(brought: Brought, left: u64) -> bool {
    brought.waits_for_the_source() && left as f64 > brought.rate() * SOON && left > MEMORY / 2
}

/// A segment that is read over several connections.
pub(super) struct Ranges {
    place: Arc<Place>,
    request: Request,
    /// The pieces that are under way, in the order of their bytes.
    pieces: VecDeque<Piece>,
    /// Where the next piece begins, and where the segment ends.
    next: u64,
    end: u64,
    lines: usize,
    /// The search for the best number of lines, until it has ended.
    climb: Option<Climb>,
    since: Instant,
    /// The time in which reading waited since `since`, and the bytes that had arrived then.
    waited: Duration,
    before: u64,
    /// Whether the present number of lines is so new that it is not measured yet.
    is_settling: bool,
    /// Bytes that arrived in all pieces. Those of a later piece wait for those before them, so what is read does not tell how
    /// fast they come.
    arrived: Arc<AtomicU64>,
    /// Since when the first piece is the first one.
    first_since: Instant,
    /// The rest of the segment over one connection, because more of them are not worth it.
    tail: Option<Download>,
}

/// A part of the segment that one request brings.
struct Piece {
    chunks: mpsc::UnboundedReceiver<Result<Bytes>>,
    task: JoinHandle<()>,
    left: u64,
    size: u64,
    /// How often its rest was requested again because it was slow.
    hurried: u32,
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ranges {
    /// Goes on from a download that stands at byte `position` of a segment with `end` bytes. `one` is what its connection
    /// brings.
    pub fn new(
        place: &Arc<Place>,
        request: &Request,
        download: Download,
        (position, end): (u64, u64),
        one: Brought,
    ) -> Self {
        let known = place.http.as_ref().and_then(PlaceHttp::known_lines);
        let mut ranges = Ranges {
            place: place.clone(),
            request: request.clone(),
            pieces: VecDeque::new(),
            next: position,
            end,
            lines: known.unwrap_or(2),
            climb: known.is_none().then(|| Climb::new(one.rate())),
            since: Instant::now(),
            waited: Duration::ZERO,
            before: 0,
            is_settling: true,
            arrived: Arc::default(),
            first_since: Instant::now(),
            tail: None,
        };
        ranges.begin(Some(download));
        ranges
    }

    /// The next bytes in their order. `None` means that the segment has ended.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        self.measure();
        self.fill();
        let begun = Instant::now();
        let chunk = loop {
            if let Some(tail) = &mut self.tail {
                return tail.next().await;
            }
            let Some(piece) = self.pieces.front_mut() else {
                if self.next >= self.end {
                    return Ok(None);
                }
                // No line is free, or one is enough.
                self.tail =
                    Some(Download::open(self.http()?, &self.request, self.next, None, Reader::Host).await?);
                continue;
            };
            let Ok(received) = tokio::time::timeout(SLOW, piece.chunks.recv()).await else {
                self.hurry();
                continue;
            };
            match received.transpose()? {
                Some(chunk) => {
                    piece.left = piece.left.saturating_sub(chunk.len() as u64);
                    if piece.chunks.is_empty() && self.first_since.elapsed() > SLOW {
                        self.hurry();
                    }
                    break chunk;
                }
                None if piece.left > 0 => {
                    return Err(Error::transient(format!(
                        "GET {}: a piece ended too early",
                        self.request.url.shown()
                    )));
                }
                None => {
                    self.pieces.pop_front();
                    self.first_since = Instant::now();
                }
            }
            self.fill();
        };
        self.waited += begun.elapsed();
        Ok(Some(chunk))
    }

    fn http(&self) -> Result<&PlaceHttp> {
        let none = || Error::new(Kind::Internal, "read a blob over several connections: there is no host");
        self.place.http.as_ref().ok_or_else(none)
    }

    /// Decides on the number of lines, when the present one was measured for long enough.
    fn measure(&mut self) {
        let (Some(climb), Some(http)) = (&mut self.climb, &self.place.http) else { return };
        let (elapsed, arrived) = (self.since.elapsed(), self.arrived.load(Ordering::Relaxed));
        if self.is_settling {
            if elapsed >= SETTLING {
                (self.since, self.waited, self.before) = (Instant::now(), Duration::ZERO, arrived);
                self.is_settling = false;
            }
            return;
        }
        if elapsed < MEASURED {
            return;
        }
        let brought = Brought { bytes: arrived - self.before, elapsed, waited: self.waited };
        let next = climb.measured(brought);
        let (url, rate) = (self.request.url.shown(), brought.rate() / 1e6);
        tracing::debug!("{url}: {} lines bring {rate:.0} MB/s: {next:?}", self.lines);
        match next {
            Next::Try(lines) => self.lines = lines,
            Next::Stay(lines) => {
                self.lines = lines;
                self.climb = None;
                http.learn_lines(lines);
            }
        }
        (self.since, self.is_settling) = (Instant::now(), true);
    }

    /// Requests the rest of the first piece again, if all others have come and wait for it: one slow connection must not
    /// hold up a blob.
    fn hurry(&mut self) {
        let others = self.pieces.iter().skip(1);
        let are_there = self.pieces.len() > 1 && others.clone().all(|piece| piece.task.is_finished());
        let full = self.next >= self.end || self.pieces.len() >= self.lines + AHEAD;
        let Some(first) = self.pieces.front() else { return };
        if !are_there || !full || first.hurried >= HURRIED || first.left == 0 || first.task.is_finished() {
            return;
        }
        let after: u64 = self.pieces.iter().skip(1).map(|piece| piece.size).sum();
        let to = self.next - after;
        let (from, hurried) = (to - first.left, first.hurried + 1);
        tracing::debug!(
            "{}: one connection is slow, so its piece is requested again",
            self.request.url.shown()
        );
        let mut again = self.piece(None, None, (from, to));
        (again.hurried, again.size) = (hurried, first.size);
        self.pieces[0] = again;
        self.first_since = Instant::now();
    }

    /// Begins pieces, as many as there are lines.
    fn fill(&mut self) {
        while self.lines > 1 && self.next < self.end && self.pieces.len() < self.lines + AHEAD {
            let under_way = self.pieces.iter().filter(|piece| !piece.task.is_finished()).count();
            if under_way >= self.lines || !self.begin(None) {
                return;
            }
        }
    }

    /// Begins the next piece, with a download that stands at its beginning or with a request of its own. Returns false if
    /// the host has no room for another line.
    fn begin(&mut self, download: Option<Download>) -> bool {
        let line = match (&download, &self.place.http) {
            (None, Some(http)) => match http.spare_line() {
                Some(line) => Some(line),
                // The permit of the blob itself is good for one.
                None if self.pieces.iter().all(|piece| piece.task.is_finished()) => None,
                None => return false,
            },
            _ => None,
        };
        let size = (MEMORY / (self.lines + AHEAD) as u64).min(self.end - self.next);
        let (from, to) = (self.next, self.next + size);
        let piece = self.piece(line, download, (from, to));
        self.pieces.push_back(piece);
        self.next = to;
        true
    }

    /// A piece that is being brought.
    fn piece(&self, line: Option<Line>, download: Option<Download>, (from, to): (u64, u64)) -> Piece {
        let (sender, chunks) = mpsc::unbounded_channel();
        let (place, request, arrived) = (self.place.clone(), self.request.clone(), self.arrived.clone());
        let task = tokio::spawn(async move {
            let _line = line;
            if let Err(error) = bring(&place, &request, download, (from, to), (&sender, &arrived)).await {
                // Who reads the blob may not want it any more.
                let _ = sender.send(Err(error));
            }
        });
        Piece { chunks, task, left: to - from, size: to - from, hurried: 0 }
    }
}

/// Brings a piece. What breaks off is requested again from where it stands.
async fn bring(
    place: &Place,
    request: &Request,
    mut download: Option<Download>,
    (mut at, to): (u64, u64),
    (sender, arrived): (&mpsc::UnboundedSender<Result<Bytes>>, &AtomicU64),
) -> Result<()> {
    let Some(http) = &place.http else { return Ok(()) };
    let mut times = 0;
    while at < to {
        let begun = at;
        // A server may send few bytes at a time, and each chunk that waits costs more memory than its bytes.
        let mut gathered = BytesMut::new();
        let part = async {
            let mut open = match download.take() {
                Some(download) => download,
                None => Download::open(http, request, at, Some(to), Reader::Host).await?,
            };
            while at < to {
                let Some(mut chunk) = open.next().await? else { break };
                chunk.truncate((to - at).min(chunk.len() as u64) as usize);
                at += chunk.len() as u64;
                arrived.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                if gathered.is_empty() && chunk.len() >= GATHERED {
                    // Who reads the blob may not want it any more, and ends this task then.
                    let _ = sender.send(Ok(chunk));
                    continue;
                }
                gathered.extend_from_slice(&chunk);
                if gathered.len() >= GATHERED {
                    let _ = sender.send(Ok(gathered.split().freeze()));
                }
            }
            Ok::<_, Error>(())
        };
        let part = part.await;
        if !gathered.is_empty() {
            let _ = sender.send(Ok(gathered.freeze()));
        }
        let error = match part {
            Ok(()) if at >= to => return Ok(()),
            Ok(()) => Error::transient(format!("GET {}: a piece ended too early", request.url.shown())),
            Err(error) => error,
        };
        times = if at - begun >= MEANT { 0 } else { times + 1 };
        if times >= TIMES || !error.is_transient() {
            // The blob is read over one connection then, and so are others of this host.
            http.learn_lines(1);
            return Err(error);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
