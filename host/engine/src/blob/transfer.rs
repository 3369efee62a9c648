//! Bringing one blob from a place to another.

use crate::{
    Error, Event, Journal, Kind, Observer, Place, Result,
    blob::reader::{BlobReader, through},
    contract::{Arrival, Incoming, Outcome, Request, Segment, Step},
    decode::Plain,
    error::Context,
    files::{AtomicFile, Root, Writer},
    http::{Backoff, Load, Uploaded, feed, upload},
    journal::RepositoryKey,
    lock,
    run::convert::verify,
    schedule::fair_share::{FairPermit, FairShare},
};
use bytes::Bytes;
use dray_core::{Descriptor, Hasher};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::Read,
    sync::{Arc, LazyLock, Mutex, atomic::AtomicUsize},
};

/// Steps without a byte that moves, after which a plugin is taken to go round in circles.
const STEPS: usize = 100;
/// Bytes of what a plugin wants to find again.
const STATE: usize = 64 << 10;
/// How many times its size may be sent of a blob, whatever the destination answers: each of them was in vain.
const TIMES: u64 = 3;

/// Blobs that are written to disks at once. Each has threads that wait for each other, so all of them
/// together must fit into the runtime's. Who has a turn waits for permits, and never the other way round.
/// Each has files open, too, of which a process may have few.
static AT_ONCE: LazyLock<Arc<FairShare>> = LazyLock::new(|| {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    FairShare::new((files / 8).clamp(2, 64) as usize)
});

/// Waits for the right to write a blob to a disk.
pub(crate) async fn disk_turn(source: &Place, destination: &Place) -> FairPermit {
    AT_ONCE.turn(source.route_to(destination)).await
}

/// Plain bytes written at once.
const CHUNK: usize = 512 << 10;

/// Blobs of more bytes leave a record of how far they came, so that a later process can go on. A
/// transport sends such a blob in pieces where its place takes them.
const RESUMABLE: u64 = 256 << 20;

/// Bytes of a blob that may be sent often.
const SMALL: u64 = 1 << 20;

/// How far an upload has come.
#[derive(Serialize, Deserialize)]
struct Progress {
    /// What the transport wants to find again.
    state: Vec<u8>,
    /// Bytes that were sent, and the hasher that has taken them in.
    position: u64,
    hashed: Vec<u8>,
}

/// How often one request with a part of a blob is sent, where it is led elsewhere or needs a new token.
const AGAIN: usize = 4;

/// How often a blob is sent from its beginning before the destination is given up.
const BEGINNINGS: u32 = 8;

/// One end of a transfer.
#[derive(Clone)]
pub(crate) struct Side<'a> {
    pub place: &'a Arc<Place>,
    pub repository: &'a str,
    /// How many others wait until the blob is there.
    pub wanted: Option<Arc<AtomicUsize>>,
    /// What is written may be a further name of a file of the other side.
    pub link: bool,
}

/// What is brought.
#[derive(Clone)]
pub(crate) enum Payload<'a> {
    /// A blob of the source as it is.
    Blob(&'a Descriptor),
    /// What a layer of the source decompresses to.
    Plain(&'a Descriptor),
    /// Bytes that rest in a temporary file.
    Local(Arc<File>),
    /// A file that lies in the destination's folder already and only wants its path.
    Written(Arc<Mutex<Option<AtomicFile>>>),
}

/// What came of a transfer.
pub(crate) struct Stored {
    pub finish: Arrival,
    /// Bytes that were brought; of a blob that was there, its size.
    pub size: u64,
}

struct Transfer<'a> {
    source: Side<'a>,
    destination: Side<'a>,
    payload: Payload<'a>,
    blob: &'a Descriptor,
    observer: &'a dyn Observer,
    /// What has been read so far, kept from one step to the next.
    reader: Option<BlobReader>,
    /// How often the blob was sent from its beginning.
    begun: u32,
    /// Bytes that this process brought.
    sent: u64,
    /// Bytes that were there already, and need not be brought.
    spared: u64,
    /// Bytes of the blob, as far as that is known.
    size: u64,
    /// Where an earlier process, or an earlier attempt, can be taken up.
    saved: Option<Progress>,
    /// What an earlier process, or an earlier attempt, left was believed.
    taken_up: bool,
    /// Bytes of all requests that were to send some.
    travelled: u64,
    /// Why the last request did not do what it was to do.
    said: Option<String>,
}

/// Stores a blob at the destination, by the steps that its transport names.
///
/// # Errors
/// Where the source cannot be read, its bytes are not what their digest says, or the destination
/// refuses them.
pub(crate) async fn transfer(
    source: Side<'_>,
    destination: Side<'_>,
    payload: Payload<'_>,
    incoming: &Incoming,
    observer: &dyn Observer,
) -> Result<Stored> {
    let blob = &incoming.blob;
    let transfer = Transfer {
        source,
        destination,
        payload,
        blob,
        observer,
        reader: None,
        begun: 0,
        sent: 0,
        spared: 0,
        size: blob.size,
        saved: None,
        taken_up: false,
        travelled: 0,
        said: None,
    };
    let digest = &incoming.blob.digest;
    transfer.run(incoming.clone()).await.context(|| format!("copy the blob {}", digest.short()))
}

impl Transfer<'_> {
    async fn run(mut self, mut incoming: Incoming) -> Result<Stored> {
        let Side { place, repository, .. } = self.destination;
        let (mut state, mut last) = (None, None);
        let journal = place.memory().filter(|_| self.is_resumable());
        let at = RepositoryKey::new(place, repository);
        self.saved = journal.and_then(|journal| journal.upload(&at, &self.blob.digest)).and_then(|saved| {
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
            let turn = place.transport.store(place, repository, &incoming, state, last).await?;
            idle = if self.spared + self.sent > stood { 0 } else { idle + 1 };
            stood = stood.max(self.spared + self.sent);
            if idle > STEPS || turn.state.len() > STATE {
                break;
            }
            if let Some(reader) = self.reader.as_ref().filter(|reader| reader.position() > 0)
                && let (Some(journal), Some(hashed), Step::Send { .. }) =
                    (journal, reader.hashed(), &turn.step)
            {
                let progress = Progress { state: turn.state.clone(), position: reader.position(), hashed };
                // Of bytes and numbers: it always serialises.
                let bytes = serde_json::to_vec(&progress).unwrap_or_default();
                journal.uploading(at.clone(), &self.blob.digest, Some(bytes));
                self.saved = Some(progress);
            }
            let outcome = match &turn.step {
                Step::Finished(finish) => {
                    let read = self.reader.as_ref().map(BlobReader::position);
                    if let Some(read) =
                        read.filter(|read| *finish == Arrival::Stored && *read < self.blob.size)
                    {
                        if std::mem::replace(&mut doubted, true) {
                            let size = self.blob.size;
                            let text =
                                format!("store it: it is taken to be there after {read} of {size} bytes");
                            return Err(Error::new(Kind::Plugin, text));
                        }
                        // A registry may have had it, and so not have wanted it: it is asked.
                        (incoming.absent, incoming.siblings) = (false, Vec::new());
                        self.forget(journal, &at);
                        (self.reader, state, last) = (None, None, None);
                        self.stands_at(0);
                        continue;
                    }
                    self.forget(journal, &at);
                    if !incoming.sized && *finish != Arrival::Stored {
                        self.size = self.there().await?;
                    }
                    return Ok(Stored { finish: *finish, size: self.size.saturating_sub(self.spared) });
                }
                Step::Ask(request) => self.ask(request).await,
                Step::Send { request, offset, length } => self.send(request, *offset, *length).await,
                Step::Write(path) => self.write(path).await,
                Step::Unpack(path) => self.unpack(path).await,
            };
            if let (Ok(Outcome::Response(response)), Step::Send { .. }) = (&outcome, &turn.step)
                && response.status != 201
            {
                self.said = Some(response.told());
            }
            last = Some(match outcome {
                Ok(outcome) => outcome,
                Err(error) if error.kind == Kind::Corrupt && std::mem::take(&mut self.taken_up) => {
                    tracing::warn!(
                        "{error}; what was left of an earlier attempt may be wrong, so it begins anew"
                    );
                    self.forget(journal, &at);
                    (self.reader, state, last) = (None, None, None);
                    continue;
                }
                Err(error) => {
                    if self.spared + self.sent > reached {
                        // Further than ever.
                        reached = self.spared + self.sent;
                        backoff.progress();
                    }
                    let Some(after) = backoff.after(&error) else { return Err(backoff.give_up(error)) };
                    self.observer.event(Event::Retrying { error: &error, after });
                    tokio::time::sleep(after).await;
                    self.said = Some(error.text.clone());
                    Outcome::Interrupted(error.text)
                }
            });
            state = Some(turn.state);
        }
        Err(Error::new(
            Kind::Plugin,
            format!(
                "store it: the transport {} takes step after step, and nothing moves",
                place.transport.name()
            ),
        ))
    }

    /// There is nothing more that could be taken up.
    fn forget(&mut self, journal: Option<&Journal>, at: &RepositoryKey) {
        if let (Some(_), Some(journal)) = (self.saved.take(), journal) {
            journal.uploading(at.clone(), &self.blob.digest, None);
        }
    }

    /// Bytes of a blob that the destination has.
    async fn there(&self) -> Result<u64> {
        let Side { place, repository, .. } = self.destination;
        let segments = place.transport.locate(place, repository, self.blob).await?;
        let unknown = || Error::invalid(format!("learn the size of {} at the destination", self.blob.digest));
        let path = match &segments[..] {
            [Segment::File { path, offset: 0, length: None }] => path,
            [Segment::Unpacked { size, .. }] => return Ok(*size),
            _ => return Err(unknown()),
        };
        let files = place.files.as_ref().ok_or_else(unknown)?;
        files.stat(path)?.ok_or_else(unknown)
    }

    async fn ask(&self, request: &Request) -> Result<Outcome> {
        let answer = self.http()?.send(request, Bytes::new()).await;
        // What touches another repository too is an attempt to spare the upload.
        let mounts = &self.destination.place.mounts;
        let Some(other) =
            request.access.iter().find(|access| access.repository != self.destination.repository)
        else {
            return answer.map(Outcome::Response);
        };
        let told = |refused| mounts.answered(&other.repository, self.destination.repository, refused);
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

    fn http(&self) -> Result<&crate::http::PlaceHttp> {
        let place = self.destination.place;
        place
            .http
            .as_ref()
            .ok_or_else(|| Error::invalid(format!("write to {}: it has no host", place.location)))
    }

    /// A reader that stands at `offset`.
    async fn reader(&mut self, offset: u64) -> Result<BlobReader> {
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
    async fn open(&self) -> Result<BlobReader> {
        Ok(match &self.payload {
            Payload::Local(file) => BlobReader::local(self.source.place, self.blob, file.clone()),
            Payload::Written(_) => return Err(Error::new(Kind::Plugin, "read what is to become a file")),
            Payload::Blob(blob) | Payload::Plain(blob) => {
                let reader = BlobReader::open(self.source.place, self.source.repository, blob).await?;
                if self.is_resumable() { reader.resumable() } else { reader }
            }
        })
    }

    /// The blob is sent from its beginning.
    fn begin(&mut self) -> Result<()> {
        self.begun += 1;
        if self.begun > BEGINNINGS {
            let said = self.said.as_deref().unwrap_or("the destination does not say why");
            let text = format!("send it: it broke off {BEGINNINGS} times; the last answer: {said}");
            return Err(Error::invalid(text));
        }
        if self.spared + self.sent > 0 || self.saved.is_some() {
            tracing::info!("{} begins again", self.blob.digest.short());
        }
        Ok(())
    }

    fn goes_on(&self, what: &str, offset: u64) {
        let (digest, size) = (self.blob.digest.short(), self.blob.size);
        tracing::info!("the {what} of {digest} goes on at byte {offset} of {size}");
    }

    /// So many bytes are there: the observer hears of what is spared by that, or is sent again.
    fn stands_at(&mut self, offset: u64) {
        let told = self.spared + self.sent;
        if offset < told {
            self.sent = self.sent.min(offset.saturating_sub(self.spared));
            self.spared = self.spared.min(offset);
            self.observer.event(Event::Expected(told - offset));
        } else if offset > told {
            self.spared += offset - told;
            self.observer.event(Event::Spared(offset - told));
        }
    }

    /// Whether a later process can go on where this one ends.
    fn is_resumable(&self) -> bool {
        matches!(self.payload, Payload::Blob(_)) && self.blob.size > RESUMABLE
    }

    /// Sends a stretch of the blob, to wherever the destination leads.
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
        Err(Error::invalid(text))
    }

    async fn send_once(
        &mut self,
        request: &Request,
        offset: u64,
        length: Option<u64>,
        renewed: bool,
    ) -> Result<Uploaded> {
        if matches!(self.payload, Payload::Plain(_)) {
            return Err(Error::new(Kind::Plugin, "send a blob whose size is not known"));
        }
        let size = self.blob.size;
        let end = length.map_or(size, |length| offset.saturating_add(length));
        if end > size || offset > end {
            return Err(Error::new(Kind::Plugin, format!("send bytes {offset} to {end} of {size}")));
        }
        let destination = self.destination.place.clone();
        let http = destination
            .http
            .as_ref()
            .ok_or_else(|| Error::invalid(format!("write to {}: it has no host", destination.location)))?;
        let source = self.source.place.clone();
        let asked = end - offset;
        if self.travelled + asked > size.saturating_mul(TIMES).max(SMALL) {
            let said = self.said.as_deref().unwrap_or("the destination does not say why");
            let text = format!("send it: it was sent {TIMES} times over in vain; the last answer: {said}");
            return Err(Error::invalid(text));
        }
        self.travelled += asked;
        // A plugin that asks where the bytes lie may need a permit of its own for that.
        let mut reader = self.reader(offset).await?;
        let load = Load { size: end - offset, wanted: self.destination.wanted.clone() };
        let permits = reader.start(Some(http), &load, Some(self.observer)).await?;
        let observer = self.observer;
        let sent = &mut self.sent;
        let response = upload(http, request, end - offset, renewed, async |sender| {
            // Reading at the end verifies, so an empty blob is verified too.
            while reader.position() < end || end == size {
                let Some(chunk) = reader.next(end - reader.position()).await? else { break };
                for pace in source.http.iter().chain([http]).filter_map(|http| http.pace()) {
                    pace.pass(chunk.len()).await;
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

    async fn write(&mut self, path: &str) -> Result<Outcome> {
        let place = self.destination.place;
        let files = place
            .files
            .as_ref()
            .ok_or_else(|| Error::invalid(format!("write {path}: {} has no files", place.location)))?;
        if let Payload::Written(fresh) = &self.payload {
            let fresh = lock(fresh).take();
            let fresh = fresh.ok_or_else(|| Error::new(Kind::Plugin, format!("write {path} once more")))?;
            let (files, path) = (files.clone(), path.to_owned());
            let kept = tokio::task::spawn_blocking(move || files.keep(fresh, &path)).await;
            kept.map_err(|error| Error::invalid(format!("write a file: {error}")))??;
            self.observer.event(Event::Sent(self.blob.size));
            return Ok(Outcome::Written);
        }
        let _turn = self.turn().await;
        let mut reader = self.open().await?;
        if let (Payload::Blob(_), Some((from, file))) = (&self.payload, reader.whole_file()) {
            let (files, path, link) = (files.clone(), path.to_owned(), self.destination.link);
            let taken = tokio::task::spawn_blocking(move || files.take(&path, &from, &file, link)).await;
            if let Some(fresh) = taken.map_err(|error| Error::invalid(format!("copy a file: {error}")))? {
                return self.taken(fresh).await;
            }
        }
        if let Payload::Plain(layer) = self.payload {
            return self.write_plain(files, path, layer, reader).await;
        }
        let (writer, there) = match &self.payload {
            Payload::Blob(_) if reader.is_download() && reader.is_single() => {
                let taken_up = files.take_up(path, self.blob).await;
                // What cannot be read is gone, and so is begun anew.
                self.taken_up |= taken_up.as_ref().is_err_and(|error| error.kind == Kind::Corrupt);
                let (writer, there, hasher) = taken_up?;
                reader.begin_at(there, hasher);
                (writer, there)
            }
            _ => (files.writer(path, Some(self.blob.size)).await?, 0),
        };
        if there == 0 {
            self.begin()?;
        } else {
            self.goes_on("download", there);
            self.taken_up = true;
        }
        self.stands_at(there);
        match self.fill(&mut reader, &writer).await {
            Ok(()) => writer.keep().await?,
            Err(error) => {
                match error.kind {
                    Kind::Corrupt => writer.discard().await,
                    // Another attempt goes on with what is written by then.
                    _ => _ = writer.broken().await,
                }
                return Err(error);
            }
        }
        Ok(Outcome::Written)
    }

    /// Gives a writer what comes, until its end or until it takes no more.
    async fn fill(&mut self, reader: &mut BlobReader, writer: &Writer) -> Result<()> {
        let _permits = reader.start(None, &self.load(), Some(self.observer)).await?;
        while let Some(chunk) = reader.next(u64::MAX).await? {
            if let Some(pace) = self.source.place.http.as_ref().and_then(|http| http.pace()) {
                pace.pass(chunk.len()).await;
            }
            let bytes = chunk.len() as u64;
            if !writer.write(chunk).await {
                break;
            }
            self.sent += bytes;
            self.observer.event(Event::Sent(bytes));
        }
        Ok(())
    }

    /// Writes what a layer decompresses to.
    async fn write_plain(
        &mut self,
        files: &Root,
        path: &str,
        layer: &Descriptor,
        mut reader: BlobReader,
    ) -> Result<Outcome> {
        self.begin()?;
        let permits = reader.start(None, &self.load(), Some(self.observer)).await?;
        let writer = files.writer(path, None).await?;
        let mut feed = writer.feeder();
        self.observer.event(Event::Expected(layer.size));
        let observer = self.observer;
        let passed = |bytes| observer.event(Event::Sent(bytes));
        let pace = self.source.place.http.as_ref().and_then(|http| http.pace());
        let decompressed = through(&mut reader, pace, "decompress it", passed, move |bytes| {
            let mut plain = Plain::new(bytes)?;
            let mut hasher = Hasher::new(dray_core::Algorithm::Sha256);
            let mut size = 0;
            loop {
                let mut chunk = Vec::with_capacity(CHUNK);
                if plain.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)? == 0 {
                    return Ok((hasher.finish(), size));
                }
                hasher.update(&chunk);
                size += chunk.len() as u64;
                feed(chunk.into())?;
            }
        });
        let (digest, size) = match decompressed.await {
            Ok(decompressed) => decompressed,
            // What could not be written tells more than that it could not be.
            Err(error) => return Err(writer.broken().await.unwrap_or(error)),
        };
        verify(layer, &self.blob.digest, &digest)?;
        drop(permits);
        self.size = size;
        writer.keep().await?;
        Ok(Outcome::Written)
    }

    /// What moves, as a whole.
    fn load(&self) -> Load {
        let size = match &self.payload {
            Payload::Blob(blob) | Payload::Plain(blob) => blob.size,
            Payload::Local(_) | Payload::Written(_) => self.blob.size,
        };
        Load { size, wanted: self.destination.wanted.clone() }
    }

    /// The right to write to a disk.
    async fn turn(&self) -> Option<FairPermit> {
        match self.payload {
            // Its bringer has one.
            Payload::Local(_) | Payload::Written(_) => None,
            Payload::Blob(_) | Payload::Plain(_) => {
                Some(disk_turn(self.source.place, self.destination.place).await)
            }
        }
    }

    /// A file whose content is the source's file's: it is read once, and appears where it is right.
    async fn taken(&mut self, fresh: AtomicFile) -> Result<Outcome> {
        let failed = |error: std::io::Error| Error::invalid(format!("copy a file: {error}"));
        let file = Arc::new(fresh.file().try_clone().map_err(failed)?);
        let mut reader = BlobReader::local(self.source.place, self.blob, file);
        while let Some(chunk) = reader.next(u64::MAX).await? {
            self.observer.event(Event::Sent(chunk.len() as u64));
        }
        let kept = tokio::task::spawn_blocking(move || fresh.keep()).await;
        kept.map_err(|error| Error::invalid(format!("copy a file: {error}")))?.map_err(failed)?;
        Ok(Outcome::Written)
    }

    /// The blob is verified before the folder appears.
    async fn unpack(&mut self, path: &str) -> Result<Outcome> {
        let place = self.destination.place;
        let files = place.files.clone();
        let files = files
            .ok_or_else(|| Error::invalid(format!("unpack to {path}: {} has no files", place.location)))?;
        let source = self.source.place.clone();
        let _turn = self.turn().await;
        if let Payload::Plain(layer) = self.payload {
            self.observer.event(Event::Expected(layer.size));
        }
        let mut reader = self.reader(0).await?;
        let permits = reader.start(None, &self.load(), Some(self.observer)).await?;
        let (observer, folder) = (self.observer, path.to_owned());
        let passed = |bytes| observer.event(Event::Sent(bytes));
        let pace = source.http.as_ref().and_then(|http| http.pace());
        let unpacking =
            through(&mut reader, pace, "unpack it", passed, move |bytes| files.unpack(&folder, bytes));
        let staged = unpacking.await.map_err(|error| match error.kind {
            Kind::Denied => error.help("unpacking gives files their owners, which only root may: run dray as root, or copy to docker-archive: and load that"),
            _ => error,
        })?;
        drop(permits);
        if let Payload::Plain(layer) = self.payload {
            verify(layer, &self.blob.digest, &staged.layer.digest)?;
            self.size = staged.layer.size;
        }
        let kept = tokio::task::spawn_blocking(move || staged.keep()).await;
        let kept = kept.map_err(|error| Error::invalid(format!("unpack it: {error}")))?;
        kept.map(Outcome::Unpacked).map_err(|error| Error::invalid(format!("unpack it: {error}")))
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
