//! Blobs over HTTP: downloads that are resumed with `Range`, and uploads that are fed through a channel.

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
    contract::{Body, Request, Response},
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

/// Who reads a download.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// dray itself: it verifies the bytes and passes them on, so they may come from any host.
    Host,
    /// The plugin of the place, which may read what arrives.
    Plugin,
}

/// The body of an answer, from a byte offset on.
pub(crate) struct Download {
    response: reqwest::Response,
    url: String,
    /// Number of bytes to skip at the beginning, because the server answered with an earlier start than requested.
    skip: u64,
    ranged: bool,
    host: Arc<Host>,
    rate: Rate,
}

impl Download {
    /// Requests the bytes from `offset` to `end`, or to the end of the content. If `end` is given, an answer with all of the
    /// content is an error.
    pub async fn open(
        http: &PlaceHttp,
        request: &Request,
        offset: u64,
        end: Option<u64>,
        reader: Reader,
    ) -> Result<Self> {
        // The permits waited for the host before the first attempt; this wait is for a download that is resumed.
        http.patience().await;
        let begun = Instant::now();
        // The last byte of a range belongs to it (RFC 9110, 14.1.2).
        let range = match end {
            Some(end) => Some(("range", format!("bytes={offset}-{}", end.saturating_sub(1)))),
            None => (offset > 0).then(|| ("range", format!("bytes={offset}-"))),
        };
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
            let error = http.refusal(request, &url, status, &headers, &said);
            return Err(http.explain(error, request, Action::Download, begun).await);
        }
        if end.is_some() && status != 206 {
            let text = format!("GET {}: asked for a part, and got all of it", redacted(&url));
            return Err(Error::new(Kind::Unsupported, text));
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
        // `Accept-Ranges` is defined in RFC 9110, 14.3.
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

    /// Whether the rest can be requested with `Range`.
    pub fn ranged(&self) -> bool {
        self.ranged
    }

    /// The next bytes. `None` means that the answer has ended.
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

/// The start of a `Content-Range`: 5 for `bytes 5-9/10` (RFC 9110, 14.4).
fn started(response: &reqwest::Response) -> Option<u64> {
    let range = response.headers().get("content-range")?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// A request body that receives its bytes through a channel.
struct Fed {
    chunks: mpsc::Receiver<Bytes>,
    left: u64,
    host: Arc<Host>,
}

/// The result of an upload.
pub(crate) enum Uploaded {
    /// The destination's answer.
    Answer(Response),
    /// The body must be sent again from its beginning, to this address: the host redirects, wants a new token, or has a
    /// certificate that is pinned from now on.
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
            // The feeder ended too early: the request must fail, and must not look complete.
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

/// Number of chunks that the channel buffers for the destination.
const AHEAD: usize = 4;

/// Sends a request with a body of `length` bytes, which `feed` sends into the channel. It is not tried again, because
/// nobody knows how much arrived. The caller holds the permits. `known` says what is known of the body, and `renewed` that
/// the request was sent before and that a token was refused. If feeding fails, the feeder's error is returned; a broken
/// connection gives a transient error.
pub(crate) async fn upload<F, R>(
    http: &PlaceHttp,
    request: &Request,
    length: u64,
    known: Body<'_>,
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
        // `follow` takes a body of this kind only once.
        let chunks = lock(&receiver).take().unwrap_or_else(|| mpsc::channel(1).1);
        reqwest::Body::wrap(Fed { chunks, left: length, host: http.host().clone() })
    };
    let put = async {
        let confined = http.is_strangers();
        let sending = Sending::Once { body: &body, renewed, known };
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
        // The destination answered before the end of the body, usually with a refusal.
        answer = &mut put => answer,
    };
    match answer {
        Ok(uploaded) => {
            if let Uploaded::Answer(Response { status: 200..=299, .. }) = &uploaded {
                http.host().pace.took(length, begun.elapsed());
            }
            Ok(uploaded)
        }
        Err(error) => Err(http.explain(error, request, Action::Upload, begun).await),
    }
}

/// Hands a chunk to an upload. Returns false if the upload has ended: its own error then says more. Fails with a
/// transient error if the destination accepts nothing for [`IDLE`].
pub(crate) async fn feed(sender: &mpsc::Sender<Bytes>, chunk: Bytes) -> Result<bool> {
    match tokio::time::timeout(IDLE, sender.send(chunk)).await {
        Ok(sent) => Ok(sent.is_ok()),
        Err(_) => Err(Error::transient("send the blob: the destination stalled")),
    }
}
