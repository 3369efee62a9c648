//! Answers and error documents ("Error Codes").

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::{Response, StatusCode, body::Frame, header};
use serde_json::{Value, json};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::mpsc;

pub type Answer = Response<Either<Full<Bytes>, Chunks>>;

/// A body that is sent in pieces, and how many bytes of it are left to send.
pub struct Chunks(pub mpsc::Receiver<io::Result<Bytes>>, pub u64);

impl hyper::body::Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|chunk| {
            chunk.map(|chunk| {
                chunk.map(|chunk| {
                    self.1 = self.1.saturating_sub(chunk.len() as u64);
                    Frame::data(chunk)
                })
            })
        })
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        hyper::body::SizeHint::with_exact(self.1)
    }
}

pub fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Either::Left(Full::default()));
    *answer.status_mut() = status;
    answer
}

pub fn content(media_type: &str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(body.into())));
    set(&mut answer, header::CONTENT_TYPE.as_str(), media_type);
    answer
}

pub fn json(value: &Value) -> Answer {
    content("application/json", value.to_string())
}

/// Sets a header. The values consist of digests, names and numbers, which every header can hold.
pub fn set(answer: &mut Answer, name: &'static str, value: &str) {
    if let Ok(value) = value.parse() {
        answer.headers_mut().insert(header::HeaderName::from_static(name), value);
    }
}

/// Why a request was refused or failed.
#[derive(Debug)]
pub struct Fault {
    status: StatusCode,
    code: &'static str,
    message: String,
    detail: Value,
    /// For status 416: the size of the upload or of the blob, as a header states it.
    range: Option<String>,
}

impl Fault {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Fault { status, code, message: message.into(), detail: Value::Null, range: None }
    }

    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required")
    }

    pub fn denied(why: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "DENIED", why)
    }

    pub fn busy() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", "too much is asked at once")
    }

    pub fn unsupported_because(why: &str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", why)
    }

    pub fn unsupported() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "the operation is unsupported")
    }

    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "UNSUPPORTED", "there is nothing at this address")
    }

    pub fn name_invalid(name: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "NAME_INVALID", format!("invalid repository name {name}"))
    }

    pub fn name_unknown(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", format!("repository {name} not known to registry"))
    }

    pub fn digest_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message)
    }

    pub fn blob_unknown(digest: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", format!("blob {digest} unknown to registry"))
    }

    pub fn upload_unknown() -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
    }

    pub fn upload_busy() -> Self {
        Self::new(StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID", "another request writes to this upload")
    }

    pub fn upload_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", message)
    }

    /// The chunk does not begin where the upload ends (4.3.1).
    pub fn out_of_order(size: u64) -> Self {
        let mut fault = Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "BLOB_UPLOAD_INVALID",
            format!("the upload stands at byte {size}"),
        );
        fault.range = Some(format!("0-{}", size.saturating_sub(1)));
        fault
    }

    pub fn range(size: u64) -> Self {
        let mut fault =
            Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "UNSUPPORTED", "the range cannot be satisfied");
        fault.range = Some(format!("bytes */{size}"));
        fault
    }

    pub fn manifest_unknown(reference: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", format!("manifest {reference} unknown"))
    }

    pub fn manifest_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", message)
    }

    pub fn manifest_blob_unknown(digest: &str) -> Self {
        let mut fault = Self::new(
            StatusCode::NOT_FOUND,
            "MANIFEST_BLOB_UNKNOWN",
            "manifest references a blob unknown to registry",
        );
        fault.detail = json!({ "digest": digest });
        fault
    }

    pub fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "SIZE_INVALID",
            format!("manifests have at most {limit} bytes"),
        )
    }

    pub fn answer(self, head: bool) -> Answer {
        let mut error = json!({ "code": self.code, "message": self.message });
        if !self.detail.is_null() {
            error["detail"] = self.detail;
        }
        let mut answer = if head { empty(self.status) } else { json(&json!({ "errors": [error] })) };
        *answer.status_mut() = self.status;
        if self.status == StatusCode::UNAUTHORIZED {
            set(&mut answer, "www-authenticate", "Basic realm=\"dray\"");
        }
        if let Some(range) = &self.range {
            set(&mut answer, if range.starts_with("bytes") { "content-range" } else { "range" }, range);
        }
        answer
    }
}

/// The storage failed, which is not the fault of the client.
impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        tracing::error!(%error, "the storage failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "the storage failed")
    }
}

impl From<tokio::task::JoinError> for Fault {
    fn from(error: tokio::task::JoinError) -> Self {
        io::Error::other(error).into()
    }
}
