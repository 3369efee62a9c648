//! Writes blobs to files: unchanged, decompressed, unpacked, or as a copy that shares its content with the source's
//! file.

use super::{
    reader::{BlobReader, through},
    recompress::check_diff_id,
    transfer::{Moving, Payload, Transfer, disk_permit},
};
use crate::{
    Error, Event, Kind, Result, blocking,
    contract::Outcome,
    decode::Plain,
    files::{AtomicFile, Root, Writer},
    lock,
    schedule::{fair_share::FairPermit, queue::Load},
};
use dray_core::{Algorithm, Descriptor, Hasher};
use std::{io::Read, sync::Arc, time::Instant};

/// Decompressed bytes that are written at once.
const CHUNK: usize = 512 << 10;

impl Moving<'_> {
    pub(super) async fn write(&mut self, path: &str) -> Result<Outcome> {
        let Transfer { destination, watcher, link, .. } = *self.transfer;
        let place = &destination.place;
        let files = place
            .files
            .as_ref()
            .ok_or_else(|| Error::invalid(format!("write {path}: {} has no files", place.location)))?;
        if let Payload::Written(file) = &self.transfer.payload {
            let file = lock(file).take();
            let file = file.ok_or_else(|| Error::new(Kind::Plugin, format!("write {path} once more")))?;
            let (files, path) = (files.clone(), path.to_owned());
            blocking("write a file", move || files.keep(file, &path)).await??;
            watcher.event(Event::Sent(self.blob.size));
            return Ok(Outcome::Written);
        }
        let _permit = self.disk_permit().await;
        let mut reader = self.open().await?;
        if let (Payload::Blob(_), Some((from, file))) = (&self.transfer.payload, reader.whole_file()) {
            let (files, path) = (files.clone(), path.to_owned());
            let taken = blocking("copy a file", move || files.take(&path, &from, &file, link)).await?;
            if let Some(file) = taken {
                return self.taken(file).await;
            }
        }
        if let Payload::Plain(layer) = self.transfer.payload {
            return self.write_plain(files, path, layer, reader).await;
        }
        let (writer, there) = match &self.transfer.payload {
            Payload::Blob(_) if reader.is_download() && reader.is_single() => {
                let taken_up = files.take_up(path, self.blob).await;
                // If what an earlier attempt left cannot be read, it has been removed, and the blob is begun anew.
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
                    // The next attempt resumes what is written.
                    _ => _ = writer.broken().await,
                }
                return Err(error);
            }
        }
        Ok(Outcome::Written)
    }

    /// Passes the blob to a writer, until the blob ends or the writer fails.
    async fn fill(&mut self, reader: &mut BlobReader, writer: &Writer) -> Result<()> {
        let _permits = reader.start(None, &self.load(), Some(self.transfer.watcher)).await?;
        self.transfer.ending.check()?;
        let (begun, mut brought) = (Instant::now(), 0);
        self.shown.stands_at(reader.position());
        while let Some(chunk) = reader.next(u64::MAX).await? {
            for rate in self.transfer.rates {
                rate.pass(chunk.len()).await;
            }
            let bytes = chunk.len() as u64;
            brought += bytes;
            let left = self.blob.size.saturating_sub(reader.position());
            self.transfer.ending.check_left(brought, begun.elapsed(), left)?;
            if !writer.write(chunk).await {
                break;
            }
            self.sent += bytes;
            self.transfer.watcher.event(Event::Sent(bytes));
            self.shown.stands_at(reader.position());
        }
        Ok(())
    }

    /// Writes the decompressed content of a layer.
    async fn write_plain(
        &mut self,
        files: &Root,
        path: &str,
        layer: &Descriptor,
        mut reader: BlobReader,
    ) -> Result<Outcome> {
        let watcher = self.transfer.watcher;
        self.begin()?;
        let permits = reader.start(None, &self.load(), Some(self.transfer.watcher)).await?;
        let writer = files.writer(path, None).await?;
        let mut feed = writer.feeder();
        watcher.event(Event::Expected(layer.size));
        let shown = self.shown.of_size(layer.size);
        let passed = |bytes, position| {
            watcher.event(Event::Sent(bytes));
            shown.stands_at(position);
        };
        let decompressed = through(&mut reader, self.transfer.rates, "decompress it", passed, move |bytes| {
            let mut plain = Plain::new(bytes)?;
            let mut hasher = Hasher::new(Algorithm::Sha256);
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
            // The error of the writer says more than that the writer has ended.
            Err(error) => return Err(writer.broken().await.unwrap_or(error)),
        };
        check_diff_id(layer, &self.blob.digest, &digest)?;
        drop(permits);
        self.size = size;
        writer.keep().await?;
        Ok(Outcome::Written)
    }

    /// The load of the whole transfer.
    fn load(&self) -> Load {
        let size = match &self.transfer.payload {
            Payload::Blob(blob) | Payload::Plain(blob) => blob.size,
            Payload::Local(_) | Payload::Written(_) => self.blob.size,
        };
        Load { size, wanted: self.transfer.wanted_by.clone() }
    }

    /// Waits for a permit to write to a disk. `None` means that none is needed.
    async fn disk_permit(&self) -> Option<FairPermit> {
        match self.transfer.payload {
            // The task that wrote the file holds the permit already.
            Payload::Local(_) | Payload::Written(_) => None,
            Payload::Blob(_) | Payload::Plain(_) => {
                Some(disk_permit(&self.transfer.source.place, &self.transfer.destination.place).await)
            }
        }
    }

    /// Keeps a file that shares its content with the source's file. It is read once to verify it, and appears only if
    /// it is right.
    async fn taken(&mut self, file: AtomicFile) -> Result<Outcome> {
        let failed = |error| Error::io("copy a file", error);
        let bytes = Arc::new(file.file().try_clone().map_err(failed)?);
        let mut reader = BlobReader::local(&self.transfer.source.place, self.blob, bytes);
        while let Some(chunk) = reader.next(u64::MAX).await? {
            self.transfer.watcher.event(Event::Sent(chunk.len() as u64));
        }
        blocking("copy a file", move || file.keep()).await?.map_err(failed)?;
        Ok(Outcome::Written)
    }

    /// Unpacks a layer into a folder, which appears only after the blob has been verified.
    pub(super) async fn unpack(&mut self, path: &str) -> Result<Outcome> {
        let Transfer { destination, watcher, rates, .. } = *self.transfer;
        let place = &destination.place;
        let files = place.files.clone();
        let files = files
            .ok_or_else(|| Error::invalid(format!("unpack to {path}: {} has no files", place.location)))?;
        let _permit = self.disk_permit().await;
        if let Payload::Plain(layer) = self.transfer.payload {
            watcher.event(Event::Expected(layer.size));
        }
        let mut reader = self.reader(0).await?;
        let permits = reader.start(None, &self.load(), Some(self.transfer.watcher)).await?;
        let folder = path.to_owned();
        let size = match self.transfer.payload {
            Payload::Plain(layer) => layer.size,
            _ => self.blob.size,
        };
        let shown = self.shown.of_size(size);
        let passed = |bytes, position| {
            watcher.event(Event::Sent(bytes));
            shown.stands_at(position);
        };
        let unpacking =
            through(&mut reader, rates, "unpack it", passed, move |bytes| files.unpack(&folder, bytes));
        let staged = unpacking.await.map_err(|error| match error.kind {
            Kind::Denied => error.help("unpacking gives files their owners, which only root may: run dray as root, or copy to docker-archive: and load that"),
            _ => error,
        })?;
        drop(permits);
        if let Payload::Plain(layer) = self.transfer.payload {
            check_diff_id(layer, &self.blob.digest, &staged.layer.digest)?;
            self.size = staged.layer.size;
        }
        let kept = blocking("unpack it", move || staged.keep()).await?;
        kept.map(Outcome::Unpacked).map_err(|error| Error::io("unpack it", error))
    }
}
