//! Transfers one blob from a place to another.

use super::{ending::Ending, reader::BlobReader, resume::Progress, shown::ShownBlob};
use crate::{
    Error, Event, Journal, Kind, Repository, Result, Watcher,
    contract::{Arrival, Body, Incoming, Outcome, Request, Segment, Step},
    error::Context,
    files::AtomicFile,
    http::{Backoff, PlaceHttp, SHORT, Uploaded, feed, told, upload},
    journal::RepositoryKey,
    place::Place,
    schedule::{fair_share::FairPermit, queue::Load, rate::RateLimiter},
};
use bytes::Bytes;
use dray_core::{Descriptor, Hasher};
use std::{
    fs::File,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize},
    },
    time::Instant,
};

/// Number of consecutive steps without a byte that moves, after which a plugin is considered to be in a loop.
const STEPS: usize = 100;
/// Largest state of a plugin in bytes.
const STATE: usize = 64 << 10;
/// How many times the size of a blob may be sent in total, whatever the destination answers.
const TIMES: u64 = 3;

/// Waits for a permit to write a blob to a disk. To avoid deadlocks, a task that holds a disk permit may wait for
/// permits of hosts, but never the other way round.
pub(crate) async fn disk_permit(source: &Place, destination: &Place) -> FairPermit {
    destination.disks.permit(source.route_to(destination)).await
}

/// Bytes that may be sent of any blob, even if they are more than [`TIMES`] times its size.
const SMALL: u64 = 1 << 20;

/// How often one request with a part of a blob is sent, if it is redirected or needs a new token.
const AGAIN: usize = 4;

/// How often a blob is sent from its beginning before the transfer fails.
const BEGINNINGS: u32 = 8;

/// What is transferred.
#[derive(Clone)]
pub(crate) enum Payload<'a> {
    /// A blob of the source, unchanged.
    Blob(&'a Descriptor),
    /// The decompressed content of a layer of the source.
    Plain(&'a Descriptor),
    /// Bytes in a temporary file.
    Local(Arc<File>),
    /// A file that is already in the destination's folder and only needs its path.
    Written(Arc<Mutex<Option<AtomicFile>>>),
}

/// The journal, and the key of the destination's repository in it.
pub(super) type Memory<'a> = (&'a Journal, RepositoryKey);

/// The result of a transfer.
pub(crate) struct Stored {
    pub arrival: Arrival,
    /// Bytes that were transferred. If the blob was there before, its size.
    pub size: u64,
}

/// The transfer of a blob to a destination, in the steps that the transport of the destination names.
pub(crate) struct Transfer<'a> {
    /// The image with which the blob comes, for people.
    pub image: &'a str,
    pub source: &'a Repository,
    pub destination: &'a Repository,
    pub payload: Payload<'a>,
    pub incoming: &'a Incoming,
    /// How many other tasks wait for the blob.
    pub wanted_by: Option<Arc<AtomicUsize>>,
    /// Whether a written file may be a hard link to a file of the source.
    pub link: bool,
    /// What limits how fast the bytes of the source are read.
    pub rates: &'a [&'a RateLimiter],
    /// Says whether the run or this attempt is to end.
    pub ending: &'a Ending,
    pub watcher: &'a dyn Watcher,
}

impl Transfer<'_> {
    /// Stores the blob.
    ///
    /// # Errors
    /// Fails if the source cannot be read, if its bytes do not have their digest, or if the destination refuses them.
    pub async fn run(self) -> Result<Stored> {
        let blob = self.incoming.blob.clone();
        let mut moving = Moving {
            shown: ShownBlob::new(self.watcher, self.image, &blob.digest, blob.size),
            blob: &blob,
            reader: None,
            begun: 0,
            sent: 0,
            spared: 0,
            size: blob.size,
            saved: None,
            taken_up: false,
            ranged: Arc::default(),
            travelled: 0,
            said: None,
            cut: false,
            in_pieces: false,
            whole: false,
            transfer: &self,
        };
        let stored = moving.run(self.incoming.clone()).await;
        if stored.is_err() && !matches!(self.payload, Payload::Plain(_)) {
            // Another attempt expects all of it again.
            self.watcher.event(Event::Spared(blob.size.saturating_sub(moving.told())));
        }
        stored.context(|| format!("copy the blob {}", blob.digest.short()))
    }
}

/// A transfer that is running.
pub(super) struct Moving<'a> {
    pub(super) shown: ShownBlob<'a>,
    pub transfer: &'a Transfer<'a>,
    pub blob: &'a Descriptor,
    /// The reader, kept from one step to the next.
    pub(super) reader: Option<BlobReader>,
    /// How often the blob was sent from its beginning.
    begun: u32,
    /// Bytes that this process sent.
    pub sent: u64,
    /// Bytes that were already there and did not have to be sent.
    pub(super) spared: u64,
    /// Size of the blob in bytes, as far as it is known.
    pub size: u64,
    /// Progress of an earlier process or attempt that can be resumed.
    pub(super) saved: Option<Progress>,
    /// Whether what an earlier process or attempt left was used. It may be wrong, so a corrupt blob is then sent anew.
    pub taken_up: bool,
    /// Set when some of the blob was read in ranges.
    pub(super) ranged: Arc<AtomicBool>,
    /// Bytes of all requests that were to send a part of the blob.
    travelled: u64,
    /// Why the last request failed.
    said: Option<String>,
    /// Whether the blob is sent in pieces because the line is slow, so its progress is recorded.
    pub(super) cut: bool,
    /// Whether a part of the blob was sent by itself, and whether the last request was for all of it.
    pub(super) in_pieces: bool,
    pub(super) whole: bool,
}

impl<'a> Moving<'a> {
    async fn run(&mut self, mut incoming: Incoming) -> Result<Stored> {
        let destination = self.transfer.destination;
        let (mut state, mut last) = (None, None);
        let memory =
            destination.memory().filter(|_| self.blob.size > SHORT && self.is_as_the_source_has_it());
        let memory = memory.as_ref();
        self.saved =
            memory.and_then(|(journal, key)| journal.upload(key, &self.blob.digest)).and_then(|saved| {
                // If another version of dray wrote the progress in another format, it is ignored.
                serde_json::from_slice(&saved).ok()
            });
        if let Some(saved) = &self.saved {
            (self.taken_up, self.cut) = (true, true);
            state = Some(saved.state.clone());
            last = Some(Outcome::Interrupted("the process that began it has ended".into()));
        }
        let (mut backoff, mut reached, mut doubted) = (Backoff::new(), 0, false);
        let (mut idle, mut stood) = (0, 0);
        loop {
            incoming.piece = self.piece();
            self.cut |= incoming.piece.is_some();
            let next = destination.next_step(&incoming, state, last).await?;
            idle = if self.told() > stood { 0 } else { idle + 1 };
            stood = stood.max(self.told());
            if idle > STEPS || next.state.len() > STATE {
                return Err(self.stuck());
            }
            self.save(memory, &next);
            if !matches!(next.step, Step::Finished(_)) {
                self.transfer.ending.check()?;
            }
            if let Step::Finished(arrival) = &next.step {
                let early =
                    self.reader.as_ref().map(BlobReader::position).filter(|read| *read < self.blob.size);
                if let Some(read) = early.filter(|_| *arrival == Arrival::Stored) {
                    if std::mem::replace(&mut doubted, true) {
                        let size = self.blob.size;
                        let text = format!("store it: it is taken to be there after {read} of {size} bytes");
                        return Err(Error::new(Kind::Plugin, text));
                    }
                    // The registry may already have had the blob, and may not have read the rest. The next attempt asks
                    // it first.
                    (incoming.absent, incoming.siblings) = (false, Vec::new());
                    self.begin_anew(memory);
                    (state, last) = (None, None);
                    self.stands_at(0);
                    continue;
                }
                self.forget(memory);
                self.learn_from(*arrival);
                if !incoming.sized && *arrival != Arrival::Stored {
                    self.size = self.there().await?;
                }
                return Ok(Stored { arrival: *arrival, size: self.brought(*arrival, incoming.sized) });
            }
            last = Some(match self.step(&next.step).await {
                Ok(outcome) => outcome,
                Err(error) if self.is_of_an_earlier_attempt(&error) => {
                    self.taken_up = false;
                    let why = match self.without_ranges() {
                        true => "some of it was read in parts, so it is read again as a whole",
                        false => "what was left of an earlier attempt may be wrong, so it begins anew",
                    };
                    tracing::warn!("{error}; {why}");
                    self.begin_anew(memory);
                    (state, last) = (None, None);
                    self.stands_at(0);
                    continue;
                }
                Err(error) => {
                    if self.told() > reached {
                        // It came further than any attempt before.
                        reached = self.told();
                        backoff.progress();
                    }
                    let Some(after) = backoff.after(&error) else { return Err(backoff.give_up(error)) };
                    let image = Some(self.transfer.image);
                    self.transfer.watcher.event(Event::Retrying { image, error: &error, after });
                    tokio::time::sleep(after).await;
                    self.said = Some(error.text.clone());
                    Outcome::Interrupted(error.text)
                }
            });
            state = Some(next.state);
        }
    }

    /// Carries out a step.
    async fn step(&mut self, step: &Step) -> Result<Outcome> {
        match step {
            Step::Ask { request, body } => self.ask(request, body).await,
            Step::Send { request, offset, length } => {
                let outcome = self.send(request, *offset, *length).await;
                if let Ok(Outcome::Response(response)) = &outcome
                    && response.status != 201
                {
                    self.said = Some(told(response));
                }
                outcome
            }
            Step::Write(path) => self.write(path).await,
            Step::Unpack(path) => self.unpack(path).await,
            Step::Finished(_) => Err(Error::internal("store it: it is finished")),
        }
    }

    /// Bytes that were reported to the watcher.
    fn told(&self) -> u64 {
        self.spared + self.sent
    }

    /// Bytes that were transferred for a blob that is there now. What the destination turned out to have was not.
    fn brought(&mut self, arrival: Arrival, sized: bool) -> u64 {
        let uploaded = self.transfer.destination.place.http.is_some() && arrival == Arrival::Stored && sized;
        if uploaded && self.told() < self.size {
            self.stands_at(self.size);
        }
        self.size.saturating_sub(self.spared)
    }

    fn stuck(&self) -> Error {
        let name = self.transfer.destination.place.transport.name();
        let text = format!("store it: the transport {name} takes step after step, and nothing moves");
        Error::new(Kind::Plugin, text)
    }

    /// Size in bytes of a blob that the destination already had.
    async fn there(&self) -> Result<u64> {
        let segments = self.transfer.destination.locate(self.blob).await?;
        let unknown = || Error::invalid(format!("learn the size of {} at the destination", self.blob.digest));
        let path = match &segments[..] {
            [Segment::File { path, offset: 0, length: None }] => path,
            [Segment::Unpacked { size, .. }] => return Ok(*size),
            _ => return Err(unknown()),
        };
        let files = self.transfer.destination.place.files.as_ref().ok_or_else(unknown)?;
        files.stat(path)?.ok_or_else(unknown)
    }

    async fn ask(&self, request: &Request, body: &Bytes) -> Result<Outcome> {
        let answer = self.http()?.send(request, body.clone()).await;
        // A request that also touches another repository tries to mount the blob, which can spare the upload.
        let destination = self.transfer.destination;
        let mounts = &destination.place.mounts;
        let Some(other) = request.access.iter().find(|access| access.repository != destination.name) else {
            return answer.map(Outcome::Response);
        };
        let told = |refused| mounts.answered(&other.repository, &destination.name, refused);
        match answer {
            Ok(answer) => {
                told(!matches!(answer.status, 201 | 202));
                Ok(Outcome::Response(answer))
            }
            Err(error) if error.kind != Kind::Cancelled => {
                tracing::debug!(%error, "the blob is not linked, and so is sent");
                told(true);
                Ok(Outcome::Interrupted(error.text))
            }
            Err(error) => Err(error),
        }
    }

    fn http(&self) -> Result<&PlaceHttp> {
        let place = &self.transfer.destination.place;
        place
            .http
            .as_ref()
            .ok_or_else(|| Error::invalid(format!("write to {}: it has no host", place.location)))
    }

    /// A reader at byte `offset`.
    pub(super) async fn reader(&mut self, offset: u64) -> Result<BlobReader> {
        if let Some(reader) = self.reader.take().filter(|reader| reader.position() == offset) {
            return Ok(reader);
        }
        let saved = self.saved.as_ref().filter(|saved| saved.position <= offset);
        let saved = saved.and_then(|saved| Some((saved.position, Hasher::load(&saved.hashed)?)));
        if saved.is_none() && offset == 0 {
            self.begin()?;
        }
        let mut reader = self.open().await?;
        if let Some((position, hasher)) = saved.filter(|_| reader.is_single()) {
            reader.begin_at(position, hasher);
        }
        // The digest covers the whole blob, so the bytes before `offset` are read again.
        skip(&mut reader, offset).await?;
        if offset > 0 {
            self.goes_on("upload", offset);
        }
        self.stands_at(offset);
        Ok(reader)
    }

    /// A reader at the beginning of the blob.
    pub(super) async fn open(&self) -> Result<BlobReader> {
        let source = self.transfer.source;
        Ok(match &self.transfer.payload {
            Payload::Local(file) => BlobReader::local(&source.place, self.blob, file.clone()),
            Payload::Written(_) => return Err(Error::new(Kind::Plugin, "read what is to become a file")),
            Payload::Blob(blob) | Payload::Plain(blob) => {
                let mut reader = source.blob(blob).await?;
                reader.ranged = self.ranged.clone();
                if self.is_resumable() { reader.resumable() } else { reader }
            }
        })
    }

    /// Counts another time that the blob is sent from its beginning. Fails if that is too often.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.begun += 1;
        if self.begun > BEGINNINGS {
            let said = self.said.as_deref().unwrap_or("the destination does not say why");
            let text = format!("send it: it broke off {BEGINNINGS} times; the last answer: {said}");
            return Err(Error::new(Kind::Exhausted, text));
        }
        if self.told() > 0 || self.saved.is_some() {
            tracing::info!("{} begins again", self.blob.digest.short());
        }
        Ok(())
    }

    pub(super) fn goes_on(&self, what: &str, offset: u64) {
        let (digest, size) = (self.blob.digest.short(), self.blob.size);
        tracing::info!("the {what} of {digest} goes on at byte {offset} of {size}");
    }

    /// Declares that `offset` bytes are there, and reports to the watcher what is spared or must be sent again.
    pub(super) fn stands_at(&mut self, offset: u64) {
        let told = self.told();
        if offset < told {
            self.sent = self.sent.min(offset.saturating_sub(self.spared));
            self.spared = self.spared.min(offset);
            self.transfer.watcher.event(Event::Expected(told - offset));
        } else if offset > told {
            self.spared += offset - told;
            self.transfer.watcher.event(Event::Spared(offset - told));
        }
    }

    /// Sends a range of the blob. The request is repeated if the destination redirects it or wants a new token.
    async fn send(&mut self, request: &Request, offset: u64, length: Option<u64>) -> Result<Outcome> {
        let mut request = request.clone();
        for attempt in 0..AGAIN {
            match self.send_once(&request, offset, length, attempt > 0).await? {
                Uploaded::Answer(response) => return Ok(Outcome::Response(response)),
                Uploaded::Again(url) => {
                    // The reader has moved on, so the bytes are read again.
                    self.reader = None;
                    request.url = url;
                }
            }
        }
        let text = format!("{} {}: it is to be sent again and again", request.method, request.url.shown());
        Err(Error::new(Kind::Exhausted, text))
    }

    async fn send_once(
        &mut self,
        request: &Request,
        offset: u64,
        length: Option<u64>,
        renewed: bool,
    ) -> Result<Uploaded> {
        if matches!(self.transfer.payload, Payload::Plain(_)) {
            return Err(Error::new(Kind::Plugin, "send a blob whose size is not known"));
        }
        let size = self.blob.size;
        let end = length.map_or(size, |length| offset.saturating_add(length));
        if end > size || offset > end {
            return Err(Error::new(Kind::Plugin, format!("send bytes {offset} to {end} of {size}")));
        }
        let Transfer { rates, ending, watcher, .. } = *self.transfer;
        let place = self.transfer.destination.place.clone();
        let none = || Error::invalid(format!("write to {}: it has no host", place.location));
        let http = place.http.as_ref().ok_or_else(none)?;
        let asked = end - offset;
        if self.travelled + asked > size.saturating_mul(TIMES).max(SMALL) {
            let said = self.said.as_deref().unwrap_or("the destination does not say why");
            let text = format!("send it: it was sent {TIMES} times over in vain; the last answer: {said}");
            return Err(Error::new(Kind::Exhausted, text));
        }
        self.travelled += asked;
        match asked == size {
            true => self.whole = true,
            false => (self.in_pieces, self.whole) = (true, false),
        }
        // Asking a plugin where the bytes are may need a permit as well, so the reader is made before the permits are
        // taken.
        let mut reader = self.reader(offset).await?;
        let load = Load { size: end - offset, wanted: self.transfer.wanted_by.clone() };
        let permits = reader.start(Some(http), &load, Some(watcher)).await?;
        ending.check()?;
        let begun = Instant::now();
        let shown = &self.shown;
        shown.stands_at(offset);
        let sent = &mut self.sent;
        let known = if asked == size { Body::Blob(&self.blob.digest) } else { Body::Unknown };
        let response = upload(http, request, asked, known, renewed, async |sender| {
            // Reading to the end verifies the digest, so an empty blob is read, too.
            while reader.position() < end || end == size {
                let Some(chunk) = reader.next(end - reader.position()).await? else { break };
                for rate in rates.iter().copied().chain(http.rate()) {
                    rate.pass(chunk.len()).await;
                }
                ending.check_left(reader.position() - offset, begun.elapsed(), end - reader.position())?;
                let bytes = chunk.len() as u64;
                if !feed(&sender, chunk).await? {
                    break;
                }
                *sent += bytes;
                watcher.event(Event::Sent(bytes));
                shown.stands_at(reader.position());
            }
            Ok(())
        })
        .await?;
        drop(permits);
        self.reader = Some(reader);
        Ok(response)
    }
}

/// Reads up to byte `offset`, only to hash the bytes.
async fn skip(reader: &mut BlobReader, offset: u64) -> Result<()> {
    while reader.position() < offset {
        if reader.next(offset - reader.position()).await?.is_none() {
            break;
        }
    }
    match reader.position() == offset {
        true => Ok(()),
        false => Err(Error::new(Kind::Plugin, format!("send from byte {offset}: no such place to begin"))),
    }
}
