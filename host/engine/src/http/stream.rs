//! Blobs over HTTP: downloads that go on by Range, uploads fed from elsewhere.

use super::{
    body::explanation,
    guard::redacted,
    host::Host,
    request::{Followed, PlaceHttp, Sending, unanswered},
    retry::{self, IDLE, VERIFY},
    trickle::Rate,
};
use crate::schedule::action::Action;
use crate::{
    Error, Kind, Result,
    contract::{Request, Response},
    lock,
};
use bytes::Bytes;
use dray_core::Address;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};
use tokio::sync::mpsc;

/// For whom something is downloaded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// The host: it verifies the bytes and passes them on, wherever they come from.
    Host,
    /// The plugin of the place, which may read what comes.
    Plugin,
}

/// The body of an answer, from some byte on.
pub(crate) struct Download {
    response: reqwest::Response,
    url: String,
    /// Bytes to leave out: the server did not heed the Range.
    skip: u64,
    ranged: bool,
    host: Arc<Host>,
    rate: Rate,
}

impl Download {
    /// Asks for the bytes from `offset` on.
    pub async fn open(http: &PlaceHttp, request: &Request, offset: u64, reader: Reader) -> Result<Self> {
        // The permits have waited for it the first time; this is for a download that is resumed.
        http.patience().await;
        let begun = Instant::now();
        let range = (offset > 0).then(|| ("range", format!("bytes={offset}-")));
        if !matches!(request.method.as_str(), "GET" | "POST") {
            return Err(Error::new(Kind::Plugin, format!("download with the method {}", request.method)));
        }
        let (body, confined) = (Bytes::new(), reader == Reader::Plugin && http.is_strangers());
        let sending = Sending::Small(&body);
        let followed =
            http.follow(request, Action::Download, range.as_slice(), sending, Some(IDLE), confined).await?;
        let Followed::Answer(response, url) = followed else {
            return Err(Error::transient(format!("GET {}: no answer", request.url.shown())));
        };
        let status = response.status();
        if !request.expect.contains(&status.as_u16()) {
            let headers = response.headers().clone();
            let said = explanation(response).await;
            let error = retry::refusal(&request.method, &http.host().shown(&url), status, &headers, &said);
            return Err(http.explain(error, request, Action::Download, begun).await);
        }
        let start = match status.as_u16() {
            206 => started(&response).ok_or_else(|| {
                Error::transient(format!("GET {}: a part without a proper Content-Range", redacted(&url)))
            })?,
            _ => 0,
        };
        if start > offset {
            let shown = redacted(&url);
            return Err(Error::transient(format!("GET {shown}: asked for byte {offset}, got {start}")));
        }
        // RFC 9110, 14.3.
        let accepts = response.headers().get("accept-ranges").is_some_and(|units| units == "bytes");
        let ranged = request.expect.contains(&206) && (status == 206 || accepts);
        Ok(Download {
            response,
            url: redacted(&url),
            skip: offset - start,
            ranged,
            host: http.host().clone(),
            rate: Rate::new(http.host().settings.least_rate),
        })
    }

    /// Whether its later bytes can be asked for alone.
    pub fn ranged(&self) -> bool {
        self.ranged
    }

    /// The next bytes. `None` means the end of the answer.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let begun = Instant::now();
            let chunk = tokio::time::timeout(IDLE, self.response.chunk()).await;
            let chunk = chunk.map_err(|_| Error::transient(format!("GET {}: it stalled", self.url)))?;
            let chunk = chunk.map_err(|error| {
                Error::transient(format!("GET {}: {}", self.url, retry::root_cause(&error)))
            })?;
            let Some(mut chunk) = chunk else { return Ok(None) };
            self.host.moves();
            if let Some(slow) = self.rate.passes(chunk.len() as u64, begun.elapsed()) {
                return Err(Error::transient(format!("GET {}: {slow}", self.url)));
            }
            let skipped = self.skip.min(chunk.len() as u64);
            self.skip -= skipped;
            let rest = chunk.split_off(skipped as usize);
            if !rest.is_empty() {
                return Ok(Some(rest));
            }
        }
    }
}

/// `bytes 5-9/10` → 5 (RFC 9110, 14.4).
fn started(response: &reqwest::Response) -> Option<u64> {
    let range = response.headers().get("content-range")?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// A body whose bytes come through a channel.
struct Fed {
    chunks: mpsc::Receiver<Bytes>,
    left: u64,
    host: Arc<Host>,
}

/// The result of an upload.
pub(crate) enum Uploaded {
    /// The answer.
    Answer(Response),
    /// It is to be sent again from where it began, to this address: the host leads there, or wants a new token.
    Again(Address),
}

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        match self.chunks.poll_recv(context) {
            Poll::Ready(Some(chunk)) => {
                self.left = self.left.saturating_sub(chunk.len() as u64);
                self.host.moves();
                Poll::Ready(Some(Ok(http_body::Frame::data(chunk))))
            }
            // The feeder went away early: the request must break, not look finished.
            Poll::Ready(None) if self.left > 0 => {
                Poll::Ready(Some(Err(std::io::Error::other("the source broke off"))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left)
    }
}

/// Chunks that wait for the destination.
const AHEAD: usize = 4;

/// Sends a request whose body is `length` bytes that `feed` sends into the channel. Not tried
/// again: nobody knows what arrived. The caller holds the permits. `renewed`: it was sent before, and a
/// token was refused.
///
/// # Errors
/// The feeder's own where it failed; a transient one where the destination broke.
pub(crate) async fn upload<F, R>(
    http: &PlaceHttp,
    request: &Request,
    length: u64,
    renewed: bool,
    feed: F,
) -> Result<Uploaded>
where
    F: FnOnce(mpsc::Sender<Bytes>) -> R,
    R: Future<Output = Result<()>>,
{
    let begun = Instant::now();
    let (sender, receiver) = mpsc::channel(AHEAD);
    let receiver = std::sync::Mutex::new(Some(receiver));
    let body = || {
        // What can be sent once is asked for once.
        let chunks = lock(&receiver).take().unwrap_or_else(|| mpsc::channel(1).1);
        reqwest::Body::wrap(Fed { chunks, left: length, host: http.host().clone() })
    };
    let put = async {
        let confined = http.is_strangers();
        let sending = Sending::Once { body: &body, renewed };
        match http.follow(request, Action::Upload, &[], sending, None, confined).await? {
            Followed::Again(url) => Ok(Uploaded::Again(Address::new(url))),
            Followed::Answer(response, url) => {
                http.finish(request, response, &url).await.map(Uploaded::Answer)
            }
        }
    };
    let feeding = feed(sender);
    tokio::pin!(put, feeding);
    let answer = tokio::select! {
        biased;
        fed = &mut feeding => {
            fed?;
            let verified = tokio::time::timeout(VERIFY, put).await;
            verified.map_err(|_| unanswered(request, VERIFY))?
        }
        // An answer before the end of the body: a refusal.
        answer = &mut put => answer,
    };
    match answer {
        Ok(uploaded) => Ok(uploaded),
        Err(error) => Err(http.explain(error, request, Action::Upload, begun).await),
    }
}

/// Hands a chunk to an upload.
///
/// # Errors
/// Transient where the destination takes nothing for too long. A destination that went away is
/// none: its own error tells more.
pub(crate) async fn feed(sender: &mpsc::Sender<Bytes>, chunk: Bytes) -> Result<bool> {
    match tokio::time::timeout(IDLE, sender.send(chunk)).await {
        Ok(sent) => Ok(sent.is_ok()),
        Err(_) => Err(Error::transient("send the blob: the destination stalled")),
    }
}
