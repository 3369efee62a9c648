//! State that the images of one run share.

use super::{claims::Claims, finish::Finish};
use crate::{Watcher, blob::Ending, lock};
use dray_core::{Compression, Descriptor, Digest};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, atomic::AtomicBool},
};
use tokio::sync::OnceCell;

/// Identifies content at a destination by its place and digest.
pub(super) type Key = (String, Digest);

/// Identifies a manifest by its place, its repository and its digest.
type Subject = (String, String, Digest);

/// Identifies a recompressed layer at a destination: place, repository, digest at the source, diff ID from the config,
/// and compression.
type Recompressed = (String, String, Digest, Digest, Compression);

/// Digest and size of a layer that is brought once; others that need it wait.
type Brought = Arc<OnceCell<Descriptor>>;

/// Size, compression and diff ID of a layer, for manifests that tell none of them.
type Untold = Arc<OnceCell<(u64, Compression, Digest)>>;

/// State that the images of a run share, so that shared content is brought once.
pub(super) struct Shared {
    pub watcher: Arc<dyn Watcher>,
    /// The number of the run in the journal.
    pub run: Option<i64>,
    /// Tells transfers that the run is to end.
    pub ending: Arc<Ending>,
    /// Whether the user was warned that the journal does not record the writes to a place.
    pub unremembered: AtomicBool,
    layers: Mutex<HashMap<Recompressed, Brought>>,
    untold: Mutex<HashMap<Digest, Untold>>,
    /// The work that is left for the end of the run.
    pub finish: Finish,
    pub blobs: Arc<Claims<Key>>,
    /// The second part of the key lists the platforms that were selected from an index.
    pub manifests: Arc<Claims<(Key, String)>>,
    /// Manifests for which the referrers were copied. Nobody waits for one of them while holding a claim to a manifest
    /// or a blob, so a graph cannot wait for itself.
    pub referred: Arc<Claims<Key>>,
    /// Allows one writer per subject at a time, because the list of its referrers may be a manifest that is read,
    /// extended and written back.
    pub subjects: Mutex<HashMap<Subject, Arc<tokio::sync::Mutex<()>>>>,
}

impl Shared {
    pub fn new(watcher: Arc<dyn Watcher>, run: Option<i64>) -> Self {
        Shared {
            watcher,
            run,
            ending: Arc::default(),
            unremembered: AtomicBool::default(),
            layers: Mutex::default(),
            untold: Mutex::default(),
            finish: Finish::default(),
            blobs: Claims::new(),
            manifests: Claims::new(),
            referred: Claims::new(),
            subjects: Mutex::default(),
        }
    }

    /// The cell for a recompressed layer.
    pub fn layer(&self, key: Recompressed) -> Brought {
        lock(&self.layers).entry(key).or_default().clone()
    }

    /// The cell for what was learnt about a layer of a schema 1 image.
    pub fn untold(&self, digest: &Digest) -> Untold {
        lock(&self.untold).entry(digest.clone()).or_default().clone()
    }
}
