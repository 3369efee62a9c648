//! Bringing one blob from a place to another.

use super::{reader::BlobReader, resume::Progress};
use crate::{
    Error, Event, Journal, Kind, Observer, Repository, Result,
    contract::{Arrival, Incoming, NextStep, Outcome, Request, Segment, Step},
    error::Context,
    files::AtomicFile,
    http::{Backoff, PlaceHttp, Uploaded, feed, told, upload},
    journal::RepositoryKey,
    place::Place,
    schedule::{fair_share::FairPermit, queue::Load},
};
use bytes::Bytes;
use dray_core::{Descriptor, Hasher};
use std::{
    fs::File,
    sync::{Arc, Mutex, atomic::AtomicUsize},
};

/// Steps without a byte that moves, after which a plugin is taken to go round in circles.
const STEPS: usize = 100;
/// Bytes of what a plugin wants to find again.
const STATE: usize = 64 << 10;
/// How many times its size may be sent of a blob, whatever the destination answers: each of them was without success.
const TIMES: u64 = 3;

/// Waits for the right to write a blob to a disk. Whoever has it may wait for permits of hosts, and never the other way
/// round.
pub(crate) async fn disk_permit(source: &Place, destination: &Place) -> FairPermit {
    destination.disks.permit(source.route_to(destination)).await
}

/// Blobs of more bytes leave a record of how far they came, so that a later process can go on. A
/// transport sends such a blob in pieces where its place takes them.
const RESUMABLE: u64 = 256 << 20;

/// Bytes of a blob that may be sent often.
const SMALL: u64 = 1 << 20;

/// How often one request with a part of a blob is sent, where it is led elsewhere or needs a new token.
const AGAIN: usize = 4;

/// How often a blob is sent from its beginning before the destination is given up.
const BEGINNINGS: u32 = 8;

/// What is brought.
#[derive(Clone)]
pub(crate) enum Payload<'a> {
    /// A blob of the source as it is.
    Blob(&'a Descriptor),
    /// What a layer of the source decompresses to.
    Plain(&'a Descriptor),
    /// Bytes that rest in a temporary file.
    Local(Arc<File>),
    /// A file that is in the destination's folder already and only wants its path.
    Written(Arc<Mutex<Option<AtomicFile>>>),
}

/// The journal, and how it knows the repository that is written to.
type Memory<'a> = (&'a Journal, RepositoryKey);

/// The result of a transfer.
pub(crate) struct Stored {
    pub arrival: Arrival,
    /// Bytes that were brought; of a blob that was there, its size.
    pub size: u64,
}

/// A blob that is to be stored at a destination, by the steps that its transport names.
pub(crate) struct Transfer<'a> {
    pub source: &'a Repository,
    pub destination: &'a Repository,
    pub payload: Payload<'a>,
    pub incoming: &'a Incoming,
    /// How many others wait until the blob is there.
    pub wanted_by: Option<Arc<AtomicUsize>>,
    /// What is written may be a further name of a file of the source.
    pub link: bool,
    pub observer: &'a dyn Observer,
}

impl Transfer<'_> {
    /// Stores the blob.
    ///
    /// # Errors
    /// Fails if the source cannot be read, its bytes are not what their digest says, or the destination
    /// refuses them.
    pub async fn run(self) -> Result<Stored> {
        let blob = self.incoming.blob.clone();
        let moving = Moving {
            blob: &blob,
            reader: None,
            begun: 0,
            sent: 0,
            spared: 0,
            size: blob.size,
            saved: None,
            taken_up: false,
            travelled: 0,
            said: None,
            transfer: &self,
        };
        moving.run(self.incoming.clone()).await.context(|| format!("copy the blob {}", blob.digest.short()))
    }
}

/// A transfer on its way.
pub(super) struct Moving<'a> {
    pub transfer: &'a Transfer<'a>,
    pub blob: &'a Descriptor,
    /// What has been read so far, kept from one step to the next.
    reader: Option<BlobReader>,
    /// How often the blob was sent from its beginning.
    begun: u32,
    /// Bytes that this process brought.
    pub sent: u64,
    /// Bytes that were there already, and need not be brought.
    spared: u64,
    /// Bytes of the blob, as far as that is known.
    pub size: u64,
    /// Where an earlier process, or an earlier attempt, can be resumed.
    saved: Option<Progress>,
    /// What an earlier process, or an earlier attempt, left was believed.
    pub taken_up: bool,
    /// Bytes of all requests that were to send some.
    travelled: u64,
    /// Why the last request did not do what it was to do.
    said: Option<String>,
}

impl Moving<'_> {
    async fn run(mut self, mut incoming: Incoming) -> Result<Stored> {
        let destination = self.transfer.destination;
        let (mut state, mut last) = (None, None);
        let memory = destination.memory().filter(|_| self.is_resumable());
        let memory = memory.as_ref();
        self.saved =
            memory.and_then(|(journal, key)| journal.upload(key, &self.blob.digest)).and_then(|saved| {
                // What another version wrote is not understood, and not missed.
                serde_json::from_slice(&saved).ok()
            });
        if let Some(saved) = &self.saved {
            self.taken_up = true;
            state = Some(saved.state.clone());
            last = Some(Outcome::Interrupted("the process that began it has ended".into()));
        }
        let (mut backoff, mut reached, mut doubted) = (Backoff::new(), 0, false);
        let (mut idle, mut stood) = (0, 0);
        loop {
            let next = destination.next_step(&incoming, state, last).await?;
            idle = if self.told() > stood { 0 } else { idle + 1 };
            stood = stood.max(self.told());
            if idle > STEPS || next.state.len() > STATE {
                return Err(self.stuck());
            }
            self.save(memory, &next);
            if let Step::Finished(arrival) = &next.step {
                let early =
                    self.reader.as_ref().map(BlobReader::position).filter(|read| *read < self.blob.size);
                if let Some(read) = early.filter(|_| *arrival == Arrival::Stored) {
                    if std::mem::replace(&mut doubted, true) {
                        let size = self.blob.size;
                        let text = format!("store it: it is taken to be there after {read} of {size} bytes");
                        return Err(Error::new(Kind::Plugin, text));
                    }
                    // A registry may have had it, and so not have wanted it: it is asked.
                    (incoming.absent, incoming.siblings) = (false, Vec::new());
                    self.begin_anew(memory);
                    (state, last) = (None, None);
                    self.stands_at(0);
                    continue;
                }
                self.forget(memory);
                if !incoming.sized && *arrival != Arrival::Stored {
                    self.size = self.there().await?;
                }
                return Ok(Stored { arrival: *arrival, size: self.size.saturating_sub(self.spared) });
            }
            last = Some(match self.step(&next.step).await {
                Ok(outcome) => outcome,
                Err(error) if error.kind == Kind::Corrupt && std::mem::take(&mut self.taken_up) => {
                    tracing::warn!(
                        "{error}; what was left of an earlier attempt may be wrong, so it begins anew"
                    );
                    self.begin_anew(memory);
                    (state, last) = (None, None);
                    continue;
                }
                Err(error) => {
                    if self.told() > reached {
                        // Further than ever.
                        reached = self.told();
                        backoff.progress();
                    }
                    let Some(after) = backoff.after(&error) else { return Err(backoff.give_up(error)) };
                    self.transfer.observer.event(Event::Retrying { error: &error, after });
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
            Step::Ask(request) => self.ask(request).await,
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

    /// Bytes of which the observer was told.
    fn told(&self) -> u64 {
        self.spared + self.sent
    }

    fn stuck(&self) -> Error {
        let name = self.transfer.destination.place.transport.name();
        let text = format!("store it: the transport {name} takes step after step, and nothing moves");
        Error::new(Kind::Plugin, text)
    }

    /// Tells the journal how far the upload has come, before more of it is sent.
    fn save(&mut self, memory: Option<&Memory<'_>>, next: &NextStep) {
        if let Some(reader) = self.reader.as_ref().filter(|reader| reader.position() > 0)
            && let (Some((journal, key)), Some(hashed), Step::Send { .. }) =
                (memory, reader.hashed(), &next.step)
        {
            let progress = Progress { state: next.state.clone(), position: reader.position(), hashed };
            // Of bytes and numbers: it always serialises.
            let bytes = serde_json::to_vec(&progress).unwrap_or_default();
            journal.uploading(key.clone(), &self.blob.digest, Some(bytes));
            self.saved = Some(progress);
        }
    }

    /// Nothing of what came before counts.
    fn begin_anew(&mut self, memory: Option<&Memory<'_>>) {
        self.forget(memory);
        self.reader = None;
    }

    /// There is nothing more that could be resumed.
    fn forget(&mut self, memory: Option<&Memory<'_>>) {
        if let (Some(_), Some((journal, key))) = (self.saved.take(), memory) {
            journal.uploading(key.clone(), &self.blob.digest, None);
        }
    }

    /// Bytes of a blob that the destination has.
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

    async fn ask(&self, request: &Request) -> Result<Outcome> {
        let answer = self.http()?.send(request, Bytes::new()).await;
        // What touches another repository too is an attempt to spare the upload.
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

    /// A reader that stands at `offset`.
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
        // The digest is that of the whole blob, so what went before is read again.
        skip(&mut reader, offset).await?;
        if offset > 0 {
            self.goes_on("upload", offset);
        }
        self.stands_at(offset);
        Ok(reader)
    }

    /// A reader that stands at the beginning.
    pub(super) async fn open(&self) -> Result<BlobReader> {
        let source = self.transfer.source;
        Ok(match &self.transfer.payload {
            Payload::Local(file) => BlobReader::local(&source.place, self.blob, file.clone()),
            Payload::Written(_) => return Err(Error::new(Kind::Plugin, "read what is to become a file")),
            Payload::Blob(blob) | Payload::Plain(blob) => {
                let reader = source.blob(blob).await?;
                if self.is_resumable() { reader.resumable() } else { reader }
            }
        })
    }

    /// The blob is sent from its beginning.
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

    /// So many bytes are there: the observer hears of what is spared by that, or is sent again.
    pub(super) fn stands_at(&mut self, offset: u64) {
        let told = self.told();
        if offset < told {
            self.sent = self.sent.min(offset.saturating_sub(self.spared));
            self.spared = self.spared.min(offset);
            self.transfer.observer.event(Event::Expected(told - offset));
        } else if offset > told {
            self.spared += offset - told;
            self.transfer.observer.event(Event::Spared(offset - told));
        }
    }

    /// Whether a later process can go on where this one ends.
    fn is_resumable(&self) -> bool {
        matches!(self.transfer.payload, Payload::Blob(_)) && self.blob.size > RESUMABLE
    }

    /// Sends a range of the blob, to wherever the destination leads.
    async fn send(&mut self, request: &Request, offset: u64, length: Option<u64>) -> Result<Outcome> {
        let mut request = request.clone();
        for attempt in 0..AGAIN {
            match self.send_once(&request, offset, length, attempt > 0).await? {
                Uploaded::Answer(response) => return Ok(Outcome::Response(response)),
                Uploaded::Again(url) => {
                    // What was read ahead for the first attempt is read again.
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
        let Transfer { source, observer, .. } = *self.transfer;
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
        // A plugin that asks where the bytes are may need a permit of its own for that.
        let mut reader = self.reader(offset).await?;
        let load = Load { size: end - offset, wanted: self.transfer.wanted_by.clone() };
        let permits = reader.start(Some(http), &load, Some(observer)).await?;
        let sent = &mut self.sent;
        let response = upload(http, request, end - offset, renewed, async |sender| {
            // Reading at the end verifies, so an empty blob is verified too.
            while reader.position() < end || end == size {
                let Some(chunk) = reader.next(end - reader.position()).await? else { break };
                for rate in source.place.http.iter().chain([http]).filter_map(|http| http.rate()) {
                    rate.pass(chunk.len()).await;
                }
                let bytes = chunk.len() as u64;
                if !feed(&sender, chunk).await? {
                    break;
                }
                *sent += bytes;
                observer.event(Event::Sent(bytes));
            }
            Ok(())
        })
        .await?;
        drop(permits);
        self.reader = Some(reader);
        Ok(response)
    }
}

/// Reads up to a byte, for the digest alone.
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
