//! What the images of one run share.

use super::{claims::Claims, finish::Finish};
use crate::{Observer, lock};
use dray_core::{Compression, Digest};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, atomic::AtomicBool},
};
use tokio::sync::OnceCell;

/// What is at a destination: its place and the content.
pub(super) type Key = (String, Digest);

/// A place, a repository in it, and a manifest there.
type Subject = (String, String, Digest);

/// A layer in another compression at a destination: place, repository, digest of the source's,
/// and what the config says of it.
type Recompressed = (String, String, Digest, Digest, Compression);

/// Brought once; whoever else wants it waits.
type Brought = Arc<OnceCell<(Digest, u64)>>;

/// Size, compression and diff id of a layer whose manifest tells none of them.
type Untold = Arc<OnceCell<(u64, Compression, Digest)>>;

/// What the images of a run share: what is brought once for all of them.
pub(super) struct Shared {
    pub observer: Arc<dyn Observer>,
    /// People were told that a place is written of which the journal cannot know.
    pub unremembered: AtomicBool,
    layers: Mutex<HashMap<Recompressed, Brought>>,
    untold: Mutex<HashMap<Digest, Untold>>,
    /// What is left to do at the end.
    pub finish: Finish,
    pub blobs: Arc<Claims<Key>>,
    /// The second part says which platforms' children were copied.
    pub manifests: Arc<Claims<(Key, String)>>,
    /// Manifests whose referrers were copied. Nobody waits for one while holding a claim to a manifest or a blob, so no
    /// graph waits for itself.
    pub referred: Arc<Claims<Key>>,
    /// One writer a subject at a time: the list of its referrers may be a manifest that is read,
    /// added to and written back.
    pub subjects: Mutex<HashMap<Subject, Arc<tokio::sync::Mutex<()>>>>,
}

impl Shared {
    pub fn new(observer: Arc<dyn Observer>) -> Self {
        Shared {
            observer,
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

    /// Where digest and size of a layer are kept once it was brought.
    pub fn layer(&self, key: Recompressed) -> Brought {
        lock(&self.layers).entry(key).or_default().clone()
    }

    /// Where what was learnt of a layer of schema 1 is kept.
    pub fn untold(&self, digest: &Digest) -> Untold {
        lock(&self.untold).entry(digest.clone()).or_default().clone()
    }
}
