//! Reads a blob: its segments in order, counted and hashed. An interrupted segment is resumed.

use super::ranges::{Gauge, LARGE, Ranges, may_pay};
use crate::{
    DOCUMENT_LIMIT, Error, Event, Kind, Repository, Result, Watcher,
    contract::Segment,
    files::{Root, pump},
    http::{Backoff, Download, Permits, PlaceHttp, Reader, permits},
    place::Place,
    schedule::{queue::Load, rate::RateLimiter},
};
use bytes::Bytes;
use dray_core::{Descriptor, Hasher};
use futures_util::FutureExt;
use std::{
    collections::VecDeque,
    fs::File,
    io::Read,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Longest time to wait for a source that fails in the middle of a blob while a request to the destination is open.
/// After that the permits are released, and the blob or its current piece is sent again.
const SHORT: Duration = Duration::from_secs(10);

/// Bytes that count as progress. For a small blob, a 64th of its size is enough.
const MEANT: u64 = 64 << 10;

/// A blob that is being read.
pub(crate) struct BlobReader {
    place: Arc<Place>,
    blob: Descriptor,
    /// Whether the size of the blob is known.
    sized: bool,
    segments: VecDeque<Segment>,
    current: Option<Stream>,
    /// Bytes that were read and not yet returned.
    rest: Bytes,
    /// Bytes of the current segment that were read or skipped.
    passed: u64,
    /// Bytes of the blob that were returned or skipped.
    position: u64,
    hasher: Option<Hasher>,
    backoff: Backoff,
    /// Bytes that were read since the last failure.
    came: u64,
    /// Time of the first failure since the last progress.
    failing: Option<Instant>,
    /// The temporary file that holds the blob. `None` means that the blob is read from its segments.
    local: Option<Arc<File>>,
    /// Whether a host at the destination waits for the bytes.
    hurried: bool,
    /// Measures the connection over which the blob is read. `None` means that it is not read over several.
    gauge: Option<Gauge>,
    /// Set when some of the blob came in ranges, which a cache may answer wrongly.
    pub ranged: Arc<AtomicBool>,
}

/// The result of an attempt to read.
enum Came {
    Bytes(Bytes),
    End,
    /// It failed. Another attempt may succeed after this time.
    Failed(Duration, Error),
}

enum Stream {
    Inline(Option<Bytes>),
    File(mpsc::Receiver<Result<Bytes>>),
    Http(Download),
    Ranges(Box<Ranges>),
}

impl Stream {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        match self {
            Stream::Inline(bytes) => Ok(bytes.take()),
            Stream::File(chunks) => chunks.recv().await.transpose(),
            Stream::Http(download) => download.next().await,
            Stream::Ranges(ranges) => ranges.next().await,
        }
    }
}

impl Repository {
    /// Opens a blob to read it from its beginning. What is read is verified by digest and size.
    ///
    /// # Errors
    /// Fails if the place cannot say where the bytes of the blob are.
    pub(crate) async fn blob(&self, blob: &Descriptor) -> Result<BlobReader> {
        let segments = match &blob.data {
            Some(data) => vec![Segment::Inline(data.clone().into())],
            None => self.locate(blob).await?,
        };
        Ok(BlobReader::over(&self.place, blob, segments, None))
    }

    /// Reads a small blob, such as a config, into memory and verifies it.
    ///
    /// # Errors
    /// Fails if the blob is larger than [`DOCUMENT_LIMIT`], or cannot be read.
    pub(crate) async fn small_blob(&self, blob: &Descriptor) -> Result<Vec<u8>> {
        if blob.size > DOCUMENT_LIMIT as u64 {
            return Err(Error::invalid(format!(
                "read {}: {} bytes are too many for a config",
                blob.digest, blob.size
            )));
        }
        let mut reader = self.blob(blob).await?;
        let _permits = reader.start(None, &Load::of(blob.size), None).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = reader.next(u64::MAX).await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

impl BlobReader {
    /// Whether reading can start at any byte, which needs a blob of one segment.
    pub fn is_single(&self) -> bool {
        self.segments.len() == 1
    }

    /// Whether the bytes are downloaded from a host.
    pub fn is_download(&self) -> bool {
        self.local.is_none() && matches!(self.segments.front(), Some(Segment::Http(_)))
    }

    /// Starts at byte `position`, with a hasher that has hashed the bytes before it. Must be called before anything is
    /// read, and only if [`BlobReader::is_single`] is true.
    pub fn begin_at(&mut self, position: u64, hasher: Hasher) {
        (self.passed, self.position, self.hasher) = (position, position, Some(hasher));
    }

    /// Uses a hasher that can be saved. Must be called before anything is read.
    pub fn resumable(mut self) -> Self {
        self.hasher = Some(Hasher::resumable(self.blob.digest.algorithm()));
        self
    }

    /// Marks the size of the blob as unknown. Must be called before anything is read.
    pub fn of_unknown_size(mut self) -> Self {
        self.sized = false;
        self
    }

    /// The state of the hasher. `None` means that it cannot be saved.
    pub fn hashed(&self) -> Option<Vec<u8>> {
        self.hasher.as_ref()?.save()
    }

    /// Reads a blob from a temporary file.
    pub fn local(place: &Arc<Place>, blob: &Descriptor, file: Arc<File>) -> Self {
        let whole = Segment::File { path: String::new(), offset: 0, length: None };
        Self::over(place, blob, vec![whole], Some(file))
    }

    fn over(place: &Arc<Place>, blob: &Descriptor, segments: Vec<Segment>, local: Option<Arc<File>>) -> Self {
        BlobReader {
            place: place.clone(),
            hasher: Some(Hasher::new(blob.digest.algorithm())),
            blob: blob.clone(),
            sized: true,
            segments: segments.into(),
            local,
            current: None,
            rest: Bytes::new(),
            passed: 0,
            position: 0,
            backoff: Backoff::new(),
            came: 0,
            failing: None,
            hurried: false,
            gauge: (blob.size > LARGE).then(Gauge::default),
            ranged: Arc::default(),
        }
    }

    /// The file of the source that holds exactly this blob. `None` means that there is no such file.
    pub fn whole_file(&self) -> Option<(Arc<Root>, String)> {
        let (Some(Segment::File { path, offset: 0, length: None }), 1, None) =
            (self.segments.front(), self.segments.len(), &self.local)
        else {
            return None;
        };
        Some((self.place.files.clone()?, path.clone()))
    }

    /// Waits for the permits to transfer the blob (`None` as destination means one without a host), and for its first
    /// bytes. While it waits for a source that asks for patience or fails, it holds no permit.
    ///
    /// # Errors
    /// Fails if the source cannot be read.
    pub async fn start(
        &mut self,
        destination: Option<&PlaceHttp>,
        load: &Load,
        watcher: Option<&dyn Watcher>,
    ) -> Result<Option<Permits>> {
        self.hurried = destination.is_some();
        let place = self.place.clone();
        let source = place.http.as_ref().filter(|_| self.local.is_none());
        loop {
            let mut waiting = pin!(permits(source, destination, load.clone()));
            let permits = match waiting.as_mut().now_or_never() {
                Some(permits) => permits,
                None => {
                    // The answer is ended, so that others can read from the source while this blob waits between two of
                    // its pieces.
                    self.let_go();
                    waiting.await
                }
            };
            let Some((after, error)) = self.ready().await? else { return Ok(permits) };
            permits.into_iter().for_each(Permits::unused);
            if let Some(watcher) = watcher {
                watcher.event(Event::Retrying { image: None, error: &error, after });
            }
            tokio::time::sleep(after).await;
        }
    }

    /// Ends the answer that is being read, if the bytes after it can be requested by Range.
    fn let_go(&mut self) {
        if self.segments.len() == 1
            && self
                .current
                .take_if(|stream| match stream {
                    Stream::Http(download) => download.ranged(),
                    Stream::Ranges(_) => true,
                    Stream::Inline(_) | Stream::File(_) => false,
                })
                .is_some()
        {
            self.passed -= std::mem::take(&mut self.rest).len() as u64;
        }
    }

    /// Bytes of the blob that were returned or skipped.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes, at most `most`. `None` means that the blob has ended. The last bytes are returned only after the
    /// digest has been verified.
    ///
    /// # Errors
    /// Fails if the source cannot be read, or with `Corrupt` if size or digest differ from the descriptor.
    pub async fn next(&mut self, most: u64) -> Result<Option<Bytes>> {
        if self.is_whole() {
            self.check_digest()?;
            return Ok(None);
        }
        if self.rest.is_empty() {
            let Some(chunk) = self.raw().await? else {
                if !self.sized {
                    self.check_digest()?;
                    return Ok(None);
                }
                return Err(
                    self.wrong(&format!("it ended after {} of {} bytes", self.position, self.blob.size))
                );
            };
            self.rest = chunk;
        }
        let chunk = self.rest.split_to(most.min(self.rest.len() as u64) as usize);
        self.position += chunk.len() as u64;
        if self.sized && self.position + self.rest.len() as u64 > self.blob.size {
            return Err(self.wrong(&format!("it is longer than {} bytes", self.blob.size)));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&chunk);
        }
        if self.is_whole() {
            self.check_digest()?;
        }
        Ok(Some(chunk))
    }

    fn is_whole(&self) -> bool {
        self.sized && self.position == self.blob.size
    }

    fn wrong(&self, why: &str) -> Error {
        let text = format!("verify {} from {}: {why}", self.blob.digest, self.place.location);
        Error::corrupt(text)
            .help("the source, or a cache before it, gives wrong bytes: push the image to it again")
    }

    fn check_digest(&mut self) -> Result<()> {
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        let digest = hasher.finish();
        if digest != self.blob.digest {
            return Err(self.wrong(&format!("its bytes have the digest {digest}")));
        }
        Ok(())
    }

    /// Reads the next bytes ahead. `None` means that they are there; otherwise returns the time to wait, and the error.
    async fn ready(&mut self) -> Result<Option<(Duration, Error)>> {
        if self.is_whole() || !self.rest.is_empty() {
            return Ok(None);
        }
        match self.attempt().await? {
            Came::Bytes(bytes) => self.rest = bytes,
            Came::End => {}
            Came::Failed(wait, error) => return Ok(Some((wait, error))),
        }
        Ok(None)
    }

    /// The next bytes as the source sends them. `None` means that the last segment has ended.
    async fn raw(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.attempt().await? {
                Came::Bytes(bytes) => return Ok(Some(bytes)),
                Came::End => return Ok(None),
                Came::Failed(wait, error) if self.hurried && self.failing_for() + wait > SHORT => {
                    return Err(error);
                }
                Came::Failed(wait, _) => tokio::time::sleep(wait).await,
            }
        }
    }

    fn failing_for(&self) -> Duration {
        self.failing.map_or(Duration::ZERO, |since| since.elapsed())
    }

    async fn attempt(&mut self) -> Result<Came> {
        loop {
            let Some(segment) = self.segments.front() else { return Ok(Came::End) };
            if let (true, None, Segment::Http(_), Some(http)) =
                (self.hurried, &self.current, segment, &self.place.http)
                && let Some(wait) = http.asks_for_patience()
            {
                let text = format!("read {}: {} asks for patience", self.blob.digest, self.place.location);
                return Ok(Came::Failed(wait, Error::new(Kind::RateLimited(Some(wait)), text)));
            }
            let begun = Instant::now();
            let read = async {
                if self.current.is_none() {
                    self.current = Some(match &self.local {
                        Some(file) => Stream::File(pump(file.clone(), self.passed, self.blob.size)),
                        None => open(&self.place, segment, self.passed).await?,
                    });
                }
                match &mut self.current {
                    Some(stream) => stream.next().await,
                    None => Ok(None),
                }
            };
            let error = match read.await {
                Ok(Some(chunk)) => {
                    self.passed += chunk.len() as u64;
                    self.came += chunk.len() as u64;
                    self.over_several(chunk.len(), begun.elapsed());
                    // Without this limit, a source that sends a few bytes at each attempt would never be given up.
                    if self.came >= MEANT.min(self.blob.size / 64) {
                        self.backoff.progress();
                        self.failing = None;
                    }
                    return Ok(Came::Bytes(chunk));
                }
                // The answer ended early without an error, so the rest can be requested again. `rest` is empty here, so
                // `position` counts all bytes that were read.
                Ok(None)
                    if matches!(segment, Segment::Http(_))
                        && self.segments.len() == 1
                        && self.position < self.blob.size =>
                {
                    Error::transient(format!(
                        "read {}: the answer ended after {} of {} bytes",
                        self.blob.digest, self.position, self.blob.size
                    ))
                }
                Ok(None) => {
                    self.current = None;
                    self.segments.pop_front();
                    self.passed = 0;
                    continue;
                }
                Err(error) if matches!(self.current, Some(Stream::Ranges(_))) => {
                    tracing::debug!(%error, "{} is read over one connection again", self.blob.digest);
                    (self.current, self.gauge) = (None, None);
                    continue;
                }
                Err(error) => error,
            };
            self.current = None;
            self.came = 0;
            self.failing.get_or_insert_with(Instant::now);
            let Some(wait) = self.backoff.after(&error) else { return Err(self.backoff.give_up(error)) };
            tracing::debug!(%error, ?wait, "taking the blob up again");
            return Ok(Came::Failed(wait, error));
        }
    }
}

impl BlobReader {
    /// Records a chunk for which reading waited, and goes on over several connections if one is what limits it.
    fn over_several(&mut self, bytes: usize, waited: Duration) {
        let (Some(gauge), Some(Stream::Http(download)), [Segment::Http(request)], Some(http)) =
            (&mut self.gauge, &self.current, self.segments.make_contiguous(), &self.place.http)
        else {
            return;
        };
        let known = http.known_lines();
        if !self.sized || !download.ranged() || known == Some(1) {
            return;
        }
        let Some(brought) = gauge.takes(bytes, waited) else { return };
        if !may_pay(brought, self.blob.size.saturating_sub(self.passed)) {
            return;
        }
        let Some(Stream::Http(download)) = self.current.take() else { return };
        let bounds = (self.passed, self.blob.size);
        let ranges = Ranges::new(&self.place, request, download, bounds, brought);
        tracing::debug!("{} is read over several connections", self.blob.digest);
        self.ranged.store(true, Ordering::Relaxed);
        self.current = Some(Stream::Ranges(Box::new(ranges)));
    }
}

async fn open(place: &Arc<Place>, segment: &Segment, from: u64) -> Result<Stream> {
    match segment {
        Segment::Inline(bytes) => Ok(Stream::Inline(Some(bytes.slice((from as usize).min(bytes.len())..)))),
        Segment::File { path, offset, length } => {
            let files = place
                .files
                .as_ref()
                .ok_or_else(|| Error::invalid(format!("read {path}: {} has no files", place.location)))?;
            let length = length.map(|length| length.saturating_sub(from));
            files.stream(path, offset.saturating_add(from), length).await.map(Stream::File)
        }
        Segment::Http(request) => {
            let http = place.http.as_ref().ok_or_else(|| {
                Error::invalid(format!("read {}: {} has no host", request.url.shown(), place.location))
            })?;
            Download::open(http, request, from, None, Reader::Host).await.map(Stream::Http)
        }
        Segment::Unpacked { folder, tar_split, .. } => {
            let files = place
                .files
                .as_ref()
                .ok_or_else(|| Error::invalid(format!("read {folder}: {} has no files", place.location)))?;
            files.layer(tar_split, folder, from).map(Stream::File)
        }
    }
}

/// Passes a blob through blocking work on a thread of its own. The blob is read to its end and verified, even if the
/// work does not read all of it, and as fast as `rates` let it. `passed` is called with the number of bytes of each
/// chunk, and with the position after it.
///
/// # Errors
/// Fails if the source cannot be read, or if the work fails. `doing` names the work in the text of the error.
pub(crate) async fn through<T: Send + 'static>(
    reader: &mut BlobReader,
    rates: &[&RateLimiter],
    doing: &str,
    passed: impl Fn(u64, u64),
    work: impl FnOnce(&mut (dyn Read + Send)) -> std::io::Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = mpsc::channel(4);
    let working = tokio::task::spawn_blocking(move || work(&mut Chunks { receiver, rest: Bytes::new() }));
    let mut wanted = true;
    loop {
        match reader.next(u64::MAX).await {
            Ok(Some(chunk)) => {
                for rate in rates {
                    rate.pass(chunk.len()).await;
                }
                passed(chunk.len() as u64, reader.position());
                wanted = wanted && sender.send(Ok(chunk)).await.is_ok();
            }
            Ok(None) => break,
            Err(error) => {
                // If the channel were only closed, the work would take this for the end of the blob.
                let _ = sender.send(Err(std::io::Error::other("the source broke off"))).await;
                return Err(error);
            }
        }
    }
    drop(sender);
    let done = working.await.map_err(|error| Error::internal(format!("{doing}: {error}")))?;
    done.map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => Error::new(Kind::Denied, format!("{doing}: {error}")),
        std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => {
            Error::invalid(format!("{doing}: {error}"))
        }
        _ => Error::io(doing, error),
    })
}

/// Reads chunks from a channel as one stream of bytes.
struct Chunks {
    receiver: mpsc::Receiver<std::io::Result<Bytes>>,
    rest: Bytes,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.rest.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.rest = chunk?,
                None => return Ok(0),
            }
        }
        let most = buffer.len().min(self.rest.len());
        buffer[..most].copy_from_slice(&self.rest.split_to(most));
        Ok(most)
    }
}
